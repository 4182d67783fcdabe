"""One owner's uploads leave slots for another's."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from service.access import keys
from service.access.keys import Scope
from service.datasets.info import ImportedDataset
from service.runtime.settings import Auth
from service.web.core.core import EXTENSION, Core
from service.web.datasets import uploads
from service.web.http import slots
from tests.service.web.conftest import MakeApp
from tests.service.web.datasets.test_datasets import upload_dataset
from tests.waiting import wait_until

ROWS = b"a,b,label\n" + b"".join(b"%d,%d,%c\n" % (n, n % 7, b"xy"[n % 2]) for n in range(60))


class HeldImports:
    """Imports the files of uploads, those with the words ``hold this`` only when they are released."""

    def __init__(self) -> None:
        self.release, self.held = threading.Event(), 0
        self._lock, self._import = threading.Lock(), uploads.import_in_sandbox

    def __call__(self, files: Mapping[str, Path], *arguments: Any, **options: Any) -> ImportedDataset:
        if b"hold this" in files["table"].read_bytes():
            with self._lock:
                self.held += 1
            assert self.release.wait(60)
        return self._import(files, *arguments, **options)


@pytest.fixture
def imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[HeldImports]:
    held = HeldImports()
    monkeypatch.setattr(uploads, "import_in_sandbox", held)
    yield held
    held.release.set()


def client_of(app: Flask, owner: str) -> FlaskClient:
    core: Core = app.extensions[EXTENSION]
    client = app.test_client()
    _, key = keys.create(core.database, name=owner, owner=owner, scope=Scope.SUBMIT)
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {key}"
    return client


def test_imports_of_one_owner_leave_half_of_the_slots_to_others(
    make_app: MakeApp, sqlite_url: str, imports: HeldImports
) -> None:
    app = make_app(sqlite_url, auth=Auth.KEYS)
    anns, bob = [client_of(app, "ann") for _ in range(5)], client_of(app, "bob")
    held = ROWS.replace(b"label", b"hold this")
    with ThreadPoolExecutor() as executor:
        answers = [
            executor.submit(upload_dataset, client, f"mine{number}", table=held)
            for number, client in enumerate(anns[:4])
        ]
        wait_until(lambda: sum(map(len, slots.IMPORTS._queues.values())) == 2, "the two that wait")
        assert imports.held == 2
        refused = upload_dataset(anns[4], "mine4", table=held)
        assert (refused.status_code, refused.json["code"]) == (503, "too_many_uploads")
        assert refused.headers["Retry-After"] == "5"
        assert upload_dataset(bob, "his", table=ROWS).status_code == 201
        assert imports.held == 2
        imports.release.set()
        assert [answer.result().status_code for answer in answers] == [201] * 4
