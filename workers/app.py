"""The Celery side of a worker: one task, which says "look"."""

from __future__ import annotations

from collections.abc import Callable

from celery import Celery

from service.contract import wire


def create_app(broker_url: str, look: Callable[[], None] | None = None) -> Celery:
    """The Celery app of a worker or, without ``look``, of a process that only sends.

    Args:
        look: takes jobs from the database and trains them, until none waits. The id in the message is for
            operators who read the queue: whichever job is first in the database is taken.
    """
    app = Celery("tapeline", broker=broker_url)
    app.conf.update(wire.SENDER_OPTIONS if look is None else wire.CELERY_OPTIONS)
    if look is not None:

        @app.task(name=wire.TRAIN_TASK)  # type: ignore[untyped-decorator]  # celery has no types
        def train(job_id: str) -> None:
            look()

    return app


def wake(app: Celery, job_id: str) -> None:
    """Tell one idle worker to look."""
    app.send_task(wire.TRAIN_TASK, args=[job_id], queue=wire.TRAIN_QUEUE)
