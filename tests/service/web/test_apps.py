"""One app serves one service after another: see ``apps``."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from service.runtime.settings import Auth, Settings
from service.web.core.core import EXTENSION
from tests.service.web import apps
from tests.service.web.apps import AppChanged, borrow_app, shut_down_app

Borrow = Callable[..., Flask]


@pytest.fixture
def borrow(sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Borrow]:
    """Borrow an app from a pool of this test."""
    monkeypatch.setattr(apps, "_idle", [])

    def borrow_one(**environ: str) -> Flask:
        return borrow_app(Settings.from_env({"TAPELINE_HOME": str(tmp_path), **environ}, cores=1))

    return borrow_one


def test_a_returned_app_serves_the_next_service_and_keeps_nothing_of_the_last(borrow: Borrow) -> None:
    first = borrow(TAPELINE_AUTH=Auth.KEYS, TAPELINE_API_KEYS="ann:" + "k" * 40, TAPELINE_PROXIES="1")
    assert first.test_client().get("/jobs", headers={"X-Forwarded-For": "10.0.0.9"}).status_code == 401
    database = weakref.ref(first.extensions[EXTENSION].database)
    shut_down_app(first)
    second = borrow()
    assert second is first
    assert second.test_client().get("/jobs", headers={"X-Forwarded-Host": "elsewhere"}).status_code == 200
    gc.collect()
    assert database() is None
    shut_down_app(second)


def test_two_services_at_a_time_have_an_app_each(borrow: Borrow) -> None:
    keyed, local = borrow(TAPELINE_AUTH=Auth.KEYS), borrow()
    statuses = [app.test_client().get("/jobs").status_code for app in (keyed, local)]
    assert statuses == [401, 200]
    shut_down_app(keyed)
    shut_down_app(local)


def test_an_app_whose_threads_still_run_is_not_lent_again(borrow: Borrow) -> None:
    app, ended = borrow(), threading.Event()
    thread = threading.Thread(target=ended.wait)
    thread.start()
    shut_down_app(app)
    ended.set()
    thread.join()
    other = borrow()
    assert other is not app
    shut_down_app(other)


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("before_request_funcs", lambda app: app.before_request(print)),
        ("after_request_funcs", lambda app: app.after_request_funcs[None].pop()),
        ("url_map", lambda app: app.get("/mine")(print)),
        ("view_functions", lambda app: app.view_functions.update({"jobs.show_list": print})),
        ("error_handler_spec", lambda app: app.errorhandler(404)(print)),
        ("config", lambda app: app.config.update(MAX_CONTENT_LENGTH=1)),
        ("templates", lambda app: app.jinja_env.globals.update(mine=1)),
        ("templates", lambda app: app.jinja_env.filters.pop("pretty")),
    ],
)
def test_what_a_test_leaves_in_an_app_fails_it(borrow: Borrow, part: str, change: Callable[[Flask], Any]) -> None:
    app = borrow()
    change(app)
    with pytest.raises(AppChanged, match="templates|routes" if part == "url_map" else part):
        shut_down_app(app)
    other = borrow()
    assert other is not app
    shut_down_app(other)
