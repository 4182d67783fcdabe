"""Creates the Flask app. Importing or calling it opens no connection and starts no thread."""

from __future__ import annotations

import re
from typing import Final

from flask import Flask, request
from werkzeug.middleware.proxy_fix import ProxyFix

from service.application.datasets import DatasetUploads
from service.application.exports import Exports
from service.application.jobs import Jobs
from service.application.specs import SpecChecks
from service.application.sweeps import Sweeps
from service.datasets.exploration import DatasetExplorer
from service.datasets.repository import DatasetRepository
from service.errors import ArtifactNotFound, FoldsNotFound, JobNotFound, KeyNotFound, SweepNotFound
from service.jobs.uploads import UploadFolder
from service.runtime.settings import Settings
from service.storage.artifacts import ArtifactFolder
from service.storage.database import Database
from service.web import assets, filters, metrics, requests, slots
from service.web.files import uploads
from service.web.files.drawings import Drawings
from service.web.files.upload_progress import ProgressBoard
from service.web.inference import exporting
from service.web.middleware import access_checks, browsers, headers, problems, request_log
from service.web.middleware.keyring import Keyring
from service.web.middleware.quotas import Quotas
from service.web.publisher import Publisher
from service.web.resources.experiments import bisection, comparisons, differences, sweep_pages, sweep_plots
from service.web.resources.experiments import sweeps as sweep_resources
from service.web.resources.jobs import (
    artifacts,
    checkpoints,
    confusion,
    evaluation,
    events,
    exports,
    inference,
    lists,
    plots,
    results,
    samples,
)
from service.web.resources.pages import dataset_pages, documents, job_view, pages, service_pages
from service.web.resources.service import (
    audit,
    dataset_content,
    datasets,
    keys,
    limits,
    presets,
    probes,
    sessions,
    usage,
    workers,
)
from service.web.schemas.experiments.sweeps import new_sweep
from service.web.schemas.jobs import job_detail
from service.web.services import EXTENSION, Services
from service.web.streaming.all_jobs import AllJobsStream
from service.web.streaming.job_stream import Hub

_BLUEPRINTS: Final = (
    lists.blueprint,  # the blueprint of jobs, too
    results.blueprint,
    events.blueprint,
    checkpoints.blueprint,
    samples.blueprint,
    plots.blueprint,
    exports.blueprint,
    inference.blueprint,
    confusion.blueprint,
    evaluation.blueprint,
    artifacts.blueprint,
    sweep_resources.blueprint,
    comparisons.blueprint,
    bisection.blueprint,
    differences.blueprint,
    datasets.blueprint,
    dataset_content.blueprint,
    workers.blueprint,
    presets.blueprint,
    limits.blueprint,
    keys.blueprint,
    usage.blueprint,
    audit.blueprint,
    probes.blueprint,
    sessions.blueprint,
    documents.blueprint,
    pages.blueprint,
    job_view.blueprint,
    service_pages.blueprint,
    dataset_pages.blueprint,
    sweep_pages.blueprint,
    sweep_plots.blueprint,
)
_ID: Final = re.compile(r"[a-z]{1,8}_[0-9A-Za-z]{1,30}")


def create_app(settings: Settings) -> Flask:
    """The WSGI application for these settings."""
    app = Flask("service.web", static_folder="static", template_folder="templates")
    app.config["MAX_CONTENT_LENGTH"] = requests.MAX_BODY_BYTES
    app.config["SEND_FILE_MAX_AGE_DEFAULT"] = 0  # by their plain names, static files are revalidated
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    database = Database(settings.database_url, application="tapeline-web")
    folder = ArtifactFolder(settings.artifacts)
    repository = DatasetRepository(settings, database)
    publisher = Publisher(settings.broker_url)
    quotas = Quotas(settings, database)
    specs = SpecChecks(database=database, datasets=repository)
    jobs = Jobs(
        max_owner_bytes=settings.quotas.artifacts,
        verified_share=settings.verify_reused,
        database=database,
        artifacts=folder,
        specs=specs,
        admit=lambda owner, count, expected_bytes: quotas.new_jobs(owner, count, expected_bytes),
        wake_up=publisher.wake,
        represent=lambda job: job_detail(job).model_dump(mode="json"),
    )
    sweeps = Sweeps(
        database=database,
        artifacts=folder,
        specs=specs,
        slots=slots.SWEEP_CHECKS,
        admit=lambda owner, count, expected_bytes: quotas.new_jobs(owner, count, expected_bytes),
        wake_up=publisher.wake,
        represent=lambda sweep: new_sweep(sweep).model_dump(mode="json"),
    )
    dataset_uploads = DatasetUploads(
        database=database,
        folder=UploadFolder(settings.artifacts),
        datasets=repository,
        import_files=uploads.import_files,
        at_most=settings.quotas.datasets,
    )
    app.extensions[EXTENSION] = Services(
        settings=settings,
        database=database,
        keyring=Keyring(settings, database),
        quotas=quotas,
        artifacts=folder,
        repository=repository,
        jobs=jobs,
        sweeps=sweeps,
        dataset_uploads=dataset_uploads,
        progress=ProgressBoard(settings.artifacts),
        exports=Exports(
            database=database,
            artifacts=folder,
            make=exporting.make,
            slots=slots.EXPORTS,
            at_most=settings.quotas.artifacts,
        ),
        drawings=Drawings(repository, database, folder),
        explorer=DatasetExplorer(repository),
        publisher=publisher,
        hub=Hub(database),
        all_jobs_stream=AllJobsStream(database),
        metrics=metrics.Metrics(
            database,
            publisher=publisher,
            artifacts=settings.artifacts,
            owner_limit_bytes=settings.quotas.artifacts if settings.keys_required else 0,
        ),
    )
    request_log.register(app)  # first, so that refused requests have an id, too
    metrics.register(app)
    access_checks.register(app, settings)
    app.before_request(_check_ids)
    headers.register(app)
    browsers.register(app)  # after the headers: Flask runs it before them, and they depend on the final content type
    assets.register(app)
    filters.register(app)
    problems.register(app)
    for blueprint in _BLUEPRINTS:
        app.register_blueprint(blueprint)
    if settings.proxies:  # the last ``count`` values of each header are the proxies'; earlier ones are ignored
        count = settings.proxies
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=count, x_proto=count, x_host=count)  # type: ignore[method-assign]
    return app


def _check_ids() -> None:
    """Answer malformed ids with 404, without a query: a database may reject such text."""
    view_args = request.view_args or {}
    for name, error in (("sweep_id", SweepNotFound), ("group", FoldsNotFound), ("key_id", KeyNotFound)):
        value = view_args.get(name)
        if value is not None and not _ID.fullmatch(value):
            raise error(value[:60])
    job_id, artifact_id = view_args.get("job_id"), view_args.get("artifact_id")
    if job_id is not None and not _ID.fullmatch(job_id):
        raise JobNotFound(job_id[:60])
    if artifact_id is not None and not _ID.fullmatch(artifact_id):
        raise ArtifactNotFound(job_id or "", f"artifact {artifact_id[:60]!r}")
