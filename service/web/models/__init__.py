"""Trained models: predictions, generated images, evaluation, and exports."""

from __future__ import annotations

from functools import partial

from flask import Flask

from service.application.models import Exports
from service.web.core.core import Core, provide
from service.web.http import slots
from service.web.models import certificates, evaluation, exports, views


def register(app: Flask) -> None:
    """Add the endpoints of models."""
    for blueprint in (
        views.blueprint,
        evaluation.blueprint,
        evaluation.evaluation_blueprint,
        exports.blueprint,
        certificates.blueprint,
        certificates.keys_blueprint,
    ):
        app.register_blueprint(blueprint)


def attach(app: Flask, core: Core) -> None:
    """Add the use cases of models, which belong to one service."""
    model_exports = Exports(
        database=core.database,
        artifacts=core.artifacts,
        make=exports.make,
        slots=slots.EXPORTS,
        signing_key=partial(certificates.signing_key, core),
        at_most=core.settings.quotas.artifacts,
    )
    provide(app, model_exports)
