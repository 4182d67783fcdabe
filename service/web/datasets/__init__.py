"""Datasets: their endpoints, pages and uploads."""

from __future__ import annotations

from flask import Flask

from service.application.datasets import DatasetUploads
from service.datasets.exploration import DatasetExplorer
from service.datasets.uploads import UploadFiles
from service.web.core.core import Core, provide
from service.web.datasets import pages, uploads, views
from service.web.datasets.upload_progress import ProgressBoard


def register(app: Flask) -> None:
    """Add the endpoints of datasets."""
    for blueprint in (views.blueprint, views.content_blueprint, pages.blueprint):
        app.register_blueprint(blueprint)


def attach(app: Flask, core: Core) -> None:
    """Add the use cases of datasets, which belong to one service."""
    dataset_uploads = DatasetUploads(
        database=core.database,
        files=UploadFiles.of(core.settings),
        datasets=core.repository,
        import_files=uploads.import_files,
        at_most=core.settings.quotas.datasets,
    )
    provide(app, dataset_uploads, ProgressBoard(core.database), DatasetExplorer(core.repository))
