"""The Celery side of a worker: one task, which says "look"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import Celery
from celery.exceptions import InvalidTaskError
from celery.worker import strategy

from service.runtime import task_names, wake_ups


def create_app(broker_url: str, look: Callable[[], None] | None = None) -> Celery:
    """The Celery app of a worker or, without ``look``, of a process that only sends.

    Args:
        look: takes jobs from the database and trains them, until none waits. The id in the message is for
            operators who read the queue: whichever job is first in the database is taken.
    """
    app = Celery("tapeline", broker=broker_url)
    app.conf.update(task_names.SENDER_OPTIONS if look is None else task_names.CELERY_OPTIONS)
    if look is not None:

        @app.task(name=task_names.TRAIN_TASK, Strategy=f"{__name__}:{drop_malformed_messages.__name__}")  # type: ignore[untyped-decorator]  # celery has no types
        def train(job_id: str) -> None:
            look()

    return app


def wake(app: Celery, job_id: str) -> None:
    """Tell one idle worker to look."""
    wake_ups.send(app, [job_id])


def drop_malformed_messages(task: Any, app: Celery, consumer: Any, **options: Any) -> Callable[..., Any]:
    """Celery's way to take a message, behind a look at whether it is one of ours; any other is dropped.

    Celery itself stops the whole worker over a body that is no task's although its headers say so, puts the message
    back, and so stops the next worker too; a body with arguments of other kinds takes a slot for ever.
    """
    take = strategy.default(task, app, consumer, **options)

    def take_or_drop(message: Any, *rest: Any, **more: Any) -> Any:
        match message.payload:
            case [[str()], dict(), dict()] if "id" in message.headers:
                return take(message, *rest, **more)
        raise InvalidTaskError("its body is not [[job id], {}, {...}]")

    return take_or_drop
