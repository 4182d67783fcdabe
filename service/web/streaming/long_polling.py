"""Long polling: the response is delayed until the job changes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from flask import Response

from service.jobs.queries import lookup
from service.web.middleware.access_checks import key_required_problem, permission_check
from service.web.responses import tagged_json
from service.web.schemas.jobs import job_detail
from service.web.services import owner, services
from service.web.streaming.client import Permission


def wait_for_change(job_id: str, wait_s: float) -> Response:
    """The job, as soon as it differs from the client's copy; 304 if it does not change within ``wait_s``."""
    app_services, deadline = services(), time.monotonic() + wait_s
    permission = Permission(permission_check())
    with _count_as_stream(), app_services.hub.watch(job_id, is_stream=False) as watch:
        while True:
            if not permission:
                raise key_required_problem("the key was revoked, or has expired, while the response was delayed")
            # Read after the watch has begun, so that a change in between wakes this thread.
            with app_services.database.read() as session:
                job = lookup.get(session, job_id, owner=owner())
                stopped = bool(lookup.stopped_by_sweep(session, [job]))
                response = tagged_json(job_detail(job, stopped_by_sweep=stopped))
            remaining_s = deadline - time.monotonic()
            if response.status_code != 304 or remaining_s <= 0 or app_services.hub.closing:
                return response
            watch.wait(min(remaining_s, 1.0))


@contextmanager
def _count_as_stream() -> Iterator[None]:
    """Count a delayed response as a stream: it occupies a thread, too."""
    close = services().quotas.stream(owner())
    try:
        yield
    finally:
        close()
