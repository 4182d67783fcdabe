"""The service itself: workers, queue, limits, health, keys, sessions, usage and the audit log."""

from __future__ import annotations

from flask import Flask

from service.web.admin import keys, owners, pages, service, sessions, sign_in_links, usage


def register(app: Flask) -> None:
    """Add the endpoints of the service."""
    for blueprint in (
        service.blueprint,
        service.presets_blueprint,
        service.limits_blueprint,
        service.health_blueprint,
        keys.blueprint,
        owners.blueprint,
        sign_in_links.blueprint,
        sessions.blueprint,
        usage.blueprint,
        usage.audit_blueprint,
        pages.blueprint,
    ):
        app.register_blueprint(blueprint)
