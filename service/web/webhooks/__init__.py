"""Webhooks: their endpoints and pages."""

from __future__ import annotations

from flask import Flask

from service.web.core.core import Core, provide
from service.web.webhooks import pages, views
from service.webhooks.addresses import AddressRules


def register(app: Flask, core: Core) -> None:
    """Add the endpoints of webhooks."""
    provide(app, AddressRules.of(core.settings))
    for blueprint in (views.blueprint, pages.blueprint):
        app.register_blueprint(blueprint)
