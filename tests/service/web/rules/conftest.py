"""One populated service for all rules: they change none of its objects, only objects of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from service.runtime.settings import Auth, Settings
from tests.service.web.apps import borrow_app, shut_down_app
from tests.service.web.rules.populated import OPERATOR_KEY, PopulatedService, fill, open_service


@pytest.fixture(scope="session")
def empty_service(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Iterator[PopulatedService]:
    """The service before Ann has created anything."""
    home = tmp_path_factory.mktemp("rules")
    (home / "tapeline.db").write_bytes(migrated.read_bytes())
    app = borrow_app(_settings(home, f"sqlite:///{home / 'tapeline.db'}"))
    yield open_service(app)
    shut_down_app(app)


@pytest.fixture(scope="session")
def populated(empty_service: PopulatedService) -> Iterator[PopulatedService]:
    """The service with Ann's objects."""
    with ExitStack() as held:
        fill(empty_service, held)
        yield empty_service


def _settings(home: Path, database_url: str) -> Settings:
    return Settings(
        home=home,
        workers=1,
        database_url=database_url,
        broker_url=None,
        artifacts=home / "artifacts",
        data=home / "data",
        auth=Auth.KEYS,
        api_keys=(OPERATOR_KEY,),
        lease_s=15.0,
    )
