"""Creates the Flask app. Importing or calling it opens no connection and starts no thread."""

from __future__ import annotations

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from service import declarations
from service.datasets.repository import DatasetRepository
from service.declarations import Room
from service.runtime.settings import Settings
from service.storage.database import Database
from service.storage.stores import open_store
from service.web import admin, datasets, docs, jobs, models
from service.web.core import metrics
from service.web.core.core import EXTENSION, Core, provide
from service.web.core.keyring import Keyring
from service.web.core.metrics import Metrics
from service.web.core.publisher import Publisher
from service.web.core.quotas import Quotas
from service.web.core.rooms import Operations, Pages, navigation
from service.web.core.server_certificates import ServerCertificates, servers
from service.web.core.store_check import StoreCheck
from service.web.gate import access_checks, browsers, responses
from service.web.gate.host_names import HostNames
from service.web.http import problems, requests, templates
from service.web.streaming.poller import Poller


def create_app(settings: Settings) -> Flask:
    """The WSGI application for these settings."""
    app = build_app()
    attach(app, settings)
    return app


def build_app() -> Flask:
    """Routes, hooks and templates. They depend on the code alone: which service an app belongs to, its requests look up
    in ``core`` and ``provided``, so it responds to none before ``attach``."""
    app = Flask("service.web", static_folder="static")
    app.config["MAX_CONTENT_LENGTH"] = requests.MAX_BODY_BYTES
    app.config["SEND_FILE_MAX_AGE_DEFAULT"] = 0  # by their plain names, static files are revalidated
    responses.log_requests(app)  # first, so that refused requests have an id, too
    metrics.register(app)
    access_checks.register(app)
    responses.add_headers(app)
    browsers.register(app)  # after the headers: Flask runs it before them, and they depend on the final content type
    templates.register(app)
    problems.register(app)
    for subject in (jobs, datasets, models, admin, docs):
        subject.register(app)
    for operations in declarations.load(Room.OPERATIONS, Operations):
        app.register_blueprint(operations.blueprint)
    of_features = declarations.load(Room.PAGES, Pages)
    for pages in of_features:
        if pages.blueprint is not None:
            app.register_blueprint(pages.blueprint)
    app.jinja_env.globals |= navigation(of_features)
    return app


def attach(app: Flask, settings: Settings) -> None:
    """Make an app that ``build_app`` has built serve these settings: all that it gets is in its ``extensions``, apart
    from the middleware."""
    database, publisher = Database(settings.database_url, application="tapeline-web"), Publisher(settings.broker_url)
    core = Core(
        settings=settings,
        database=database,
        artifacts=open_store(settings),
        repository=DatasetRepository(settings, database),
        keyring=Keyring(settings, database),
        quotas=Quotas(settings, database),
        publisher=publisher,
        metrics=Metrics(
            database,
            publisher=publisher,
            artifacts=settings.artifacts,
            certificates=ServerCertificates(servers(settings.database_url, settings.broker_url)),
            owner_limit_bytes=settings.quotas.artifacts if settings.keys_required else 0,
        ),
    )
    app.extensions[EXTENSION] = core
    provide(app, Poller(database), StoreCheck(database, core.artifacts), HostNames.of(settings))
    for subject in (jobs, datasets, models):
        subject.attach(app, core)
    for operations in declarations.load(Room.OPERATIONS, Operations):
        provide(app, *operations.provide(core))
    if settings.proxies:  # the last ``count`` values of each header are the proxies'; earlier ones are ignored
        count = settings.proxies
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=count, x_proto=count, x_host=count)  # type: ignore[method-assign]
