"""The documentation: OpenAPI, pages with forms to try each operation, and the Learn page.

The pages are our own (14 KB of scripts and styles). Scalar 1.46 (3.6 MB) and RapiDoc 9.3 (0.9 MB) were tried in their
place: neither asked another host, but both need inline styles, which our content security policy forbids. Without them
they have no layout, and Scalar is wider than a phone.
"""

from __future__ import annotations

from flask import Flask

from service.web.docs import views
from service.web.docs.terms import BY_FINDING, BY_ID, BY_METRIC


def register(app: Flask) -> None:
    """Add the endpoints of the documentation."""
    app.register_blueprint(views.blueprint)
    app.jinja_env.globals |= {"terms_by_id": BY_ID, "terms_by_metric": BY_METRIC, "terms_by_finding": BY_FINDING}
