"""Workers and the queue."""

from __future__ import annotations

from typing import Final

from flask import Blueprint

from service.jobs import worker_registry
from service.jobs.queries import queue
from service.web.core.core import core, owner
from service.web.gate.access_checks import sees_all
from service.web.http.endpoint import endpoint
from service.web.schemas.queries import QueueQuery
from service.web.schemas.service import QueueList, WorkerList, queue_list, worker_item

blueprint: Final = Blueprint("workers", __name__)

TAG: Final = "Service"


@blueprint.get("/workers")
@endpoint(TAG, WorkerList, page="/ui/workers")
def workers() -> WorkerList:
    """List the workers of the last minute, with the caller's running jobs."""
    return list_workers()


@blueprint.get("/queue")
@endpoint(TAG, QueueList, query=QueueQuery, page="/ui/workers")
def waiting(query: QueueQuery) -> QueueList:
    """List the queued jobs in the order in which workers claim them.

    Only the caller's jobs are listed; their positions count the jobs of all owners.
    """
    return read_queue(query.limit)


def list_workers() -> WorkerList:
    """The workers that are alive."""
    with core().database.read() as session:
        running = queue.running(session, owner=owner())
        alive = worker_registry.live_workers(session)
        with_messages = sees_all()
        return WorkerList(
            data=[worker_item(row, running.get(row.id, []), with_messages=with_messages) for row in alive]
        )


def read_queue(limit: int) -> QueueList:
    """The head of the queue."""
    with core().database.read() as session:
        head = queue.read(session, owner=owner(), limit=limit)
        impediment = worker_registry.impediment(session, core().settings)
        return queue_list(head, impediment, queue.waiting_by_owner(session) if sees_all() else None)
