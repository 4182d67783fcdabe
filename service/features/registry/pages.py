"""The pages of the registry, and what it adds to those of jobs."""

from __future__ import annotations

from typing import Final

from service.models.registry.of_jobs import registrations
from service.web.core.rooms import JobPart, Pages

PAGES: Final = Pages(
    of_job=JobPart(template="registry/job.html", read=lambda session, job: registrations(session, job.id))
)
