"""Jobs: their endpoints, pages, streams, files and plots."""

from __future__ import annotations

from flask import Flask

from service.application.jobs import Jobs
from service.application.specs import SpecChecks
from service.web.core.core import Core, provide
from service.web.jobs import files, pages, results, views
from service.web.jobs.schemas import new_job


def register(app: Flask) -> None:
    """Add the endpoints of jobs."""
    for blueprint in (
        views.blueprint,
        results.blueprint,
        results.events_blueprint,
        files.checkpoints_blueprint,
        files.samples_blueprint,
        files.artifacts_blueprint,
        files.plots_blueprint,
        pages.blueprint,
        pages.job_blueprint,
    ):
        app.register_blueprint(blueprint)


def attach(app: Flask, core: Core) -> None:
    """Add the use cases of jobs, which belong to one service."""
    jobs = Jobs(
        max_owner_bytes=core.settings.quotas.artifacts,
        verified_share=core.settings.verify_reused,
        database=core.database,
        artifacts=core.artifacts,
        specs=SpecChecks(database=core.database, datasets=core.repository, max_priority=core.quotas.max_priority),
        admit=lambda owner, count, expected_bytes: core.quotas.new_jobs(owner, count, expected_bytes),
        wake_up=core.publisher.wake,
        represent=lambda job: new_job(job).model_dump(mode="json"),
    )
    provide(app, jobs)
