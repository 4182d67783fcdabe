"""Webhooks: their endpoints and pages."""

from __future__ import annotations

from flask import Flask

from service.web.core.core import Core, provide
from service.web.webhooks import pages, views
from service.webhooks.addresses import AddressRules


def register(app: Flask) -> None:
    """Add the endpoints of webhooks."""
    for blueprint in (views.blueprint, pages.blueprint):
        app.register_blueprint(blueprint)


def attach(app: Flask, core: Core) -> None:
    """Add the rules for addresses of webhooks, which belong to one service."""
    provide(app, AddressRules.of(core.settings))
