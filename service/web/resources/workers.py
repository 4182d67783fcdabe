"""Who works in the service."""

from __future__ import annotations

from typing import Final

from flask import Blueprint, Response

from service.contract import leases
from service.web import queries
from service.web.answers import as_json
from service.web.operations import documented
from service.web.queries import NoQuery
from service.web.representations import WorkerList, worker_item
from service.web.services import services

blueprint: Final = Blueprint("workers", __name__)

TAG: Final = "Service"


@blueprint.get("/workers")
@documented(TAG, WorkerList)
def workers() -> Response:
    """List the worker processes that were seen within the last minute."""
    queries.read_query(NoQuery)
    with services().database.read() as session:
        return as_json(WorkerList(data=[worker_item(row) for row in leases.live_workers(session)]))
