"""The Celery app. Its one task is a hint for workers to poll the database.

``celery -A workers.app status`` and the like use the app ``celery`` with the settings of the environment.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from celery import Celery
from celery.exceptions import InvalidTaskError
from celery.worker import strategy
from celery.worker.control import Panel

from service.errors import SettingsError
from service.runtime import broker
from service.runtime.settings import Settings

if TYPE_CHECKING:
    celery: Celery


def create_app(broker_url: str, run_waiting_jobs: Callable[[], None] | None = None) -> Celery:
    """The Celery app of a worker or, without ``run_waiting_jobs``, of a process that only sends.

    Args:
        run_waiting_jobs: claims jobs from the database and trains them until none waits. It claims the first job in the
            database. The id in the message does not matter; it is for operators who read the queue.
    """
    app = Celery("tapeline", broker=broker_url)
    app.conf.update(broker.SENDER_OPTIONS if run_waiting_jobs is None else broker.CELERY_OPTIONS)
    if run_waiting_jobs is not None:
        _allow_inspection_only()

        @app.task(name=broker.TRAIN_TASK, Strategy=f"{__name__}:{drop_malformed_messages.__name__}")  # type: ignore[untyped-decorator]  # celery has no types
        def train(job_id: str) -> None:
            run_waiting_jobs()

    return app


def __getattr__(name: str) -> Any:
    """``celery``: an app for Celery's own commands. It is created on access, so that an import reads no settings."""
    if name != "celery":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    broker_url = Settings.from_env(os.environ, cores=1).broker_url
    if broker_url is None:
        raise SettingsError("set TAPELINE_BROKER_URL to the broker of the workers")
    return globals().setdefault("celery", create_app(broker_url))


def drop_malformed_messages(task: Any, app: Celery, consumer: Any, **options: Any) -> Callable[..., Any]:
    """Celery's default strategy, with a check that drops malformed messages.

    If a message has the headers, but not the body of a task, Celery stops the worker and returns the message to the
    queue, where it stops the next worker. A body with arguments of other types occupies a slot forever.
    """
    accept = strategy.default(task, app, consumer, **options)

    def accept_or_drop(message: Any, *args: Any, **kwargs: Any) -> Any:
        match message.payload:
            case [[str()], dict(), dict()] if "id" in message.headers:
                return accept(message, *args, **kwargs)
        raise InvalidTaskError("its body is not [[job id], {}, {...}]")

    return accept_or_drop


def _allow_inspection_only() -> None:
    """Remove the remote commands that change a worker: otherwise anyone who reaches the broker could stop it."""
    for name, command in Panel.meta.items():
        if command.type != "inspect":
            Panel.data.pop(name, None)
