"""Sweeps: their endpoints, pages, streams and plots."""

from __future__ import annotations

from flask import Flask

from service.application.specs import SpecChecks
from service.application.sweeps import Sweeps
from service.web.core.core import Core, provide
from service.web.http import slots
from service.web.sweeps import pages, views
from service.web.sweeps.schemas import new_sweep


def register(app: Flask) -> None:
    """Add the endpoints of sweeps."""
    for blueprint in (
        views.blueprint,
        pages.blueprint,
        views.plots_blueprint,
    ):
        app.register_blueprint(blueprint)


def attach(app: Flask, core: Core) -> None:
    """Add the use cases of sweeps, which belong to one service."""
    sweeps = Sweeps(
        database=core.database,
        artifacts=core.artifacts,
        specs=SpecChecks(database=core.database, datasets=core.repository, max_priority=core.quotas.max_priority),
        slots=slots.SWEEP_CHECKS,
        admit=lambda owner, count, expected_bytes: core.quotas.new_jobs(owner, count, expected_bytes),
        wake_up=core.publisher.wake,
        represent=lambda sweep: new_sweep(sweep).model_dump(mode="json"),
    )
    provide(app, sweeps)
