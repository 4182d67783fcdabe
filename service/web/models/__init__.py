"""Trained models: predictions, generated images, evaluation, and exports."""

from __future__ import annotations

from flask import Flask

from service.application.models import Exports
from service.application.registry import Registry
from service.web.core.core import Core, provide
from service.web.http import slots
from service.web.models import evaluation, exports, registry, views


def register(app: Flask, core: Core) -> None:
    """Add the use cases and endpoints of models."""
    model_exports = Exports(
        database=core.database,
        artifacts=core.artifacts,
        make=exports.make,
        slots=slots.EXPORTS,
        at_most=core.settings.quotas.artifacts,
    )
    provide(app, model_exports, Registry(database=core.database))
    for blueprint in (
        views.blueprint,
        evaluation.blueprint,
        evaluation.evaluation_blueprint,
        exports.blueprint,
        registry.blueprint,
    ):
        app.register_blueprint(blueprint)
