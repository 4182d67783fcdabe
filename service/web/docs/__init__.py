"""The documentation: OpenAPI, pages with forms to try each operation, and the Learn page."""

from __future__ import annotations

from flask import Flask

from service.web.docs import views
from service.web.docs.terms import BY_FINDING, BY_ID, BY_METRIC


def register(app: Flask) -> None:
    """Add the endpoints of the documentation."""
    app.register_blueprint(views.blueprint)
    app.jinja_env.globals |= {"terms_by_id": BY_ID, "terms_by_metric": BY_METRIC, "terms_by_finding": BY_FINDING}
