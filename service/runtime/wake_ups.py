"""Messages that tell workers to poll the database; web and scheduler send them."""

from __future__ import annotations

from collections.abc import Sequence

from celery import Celery

from service.runtime import task_names


def send(app: Celery, job_ids: Sequence[str]) -> int:
    """Send a hint for each job while the queue has room; returns how many were sent.

    A full queue already contains enough hints for every worker.

    Raises:
        Exception: an error of the transport, if the broker does not accept messages.
    """
    with app.producer_pool.acquire(block=True) as producer:
        room = task_names.MAX_QUEUED - producer.channel.client.llen(task_names.TRAIN_QUEUE)
        sent = job_ids[: max(room, 0)]
        for job_id in sent:
            app.send_task(
                task_names.TRAIN_TASK,
                args=[job_id],
                queue=task_names.TRAIN_QUEUE,
                producer=producer,
                retry=False,
                ignore_result=True,
            )
    return len(sent)
