"""The documentation of the API: OpenAPI, and pages with forms to try each operation."""

from __future__ import annotations

from flask import Flask

from service.web.core.core import Core
from service.web.docs import views


def register(app: Flask, core: Core) -> None:
    """Add the endpoints of the documentation."""
    app.register_blueprint(views.blueprint)
