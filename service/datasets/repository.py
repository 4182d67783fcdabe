"""The datasets that an owner can use: the built-in ones, the folders in ``TAPELINE_DATA``, and the owner's uploads."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from pathlib import Path

from service.datasets import cache, uploads
from service.datasets.cache import Dataset
from service.datasets.catalogue import catalogue, describe, may_be_named
from service.datasets.download import Progress
from service.datasets.errors import DatasetBroken, DatasetChanged, DatasetNotFound, DatasetUnavailable, closest
from service.datasets.formats.array_folders import INCOMPLETE, ArrayCache
from service.datasets.info import DatasetInfo
from service.datasets.uploads import UploadFiles
from service.runtime.settings import Settings
from service.spec.splits import Split
from service.storage.artifacts import ArtifactDamaged, ArtifactUnreadable
from service.storage.database import Reader
from service.storage.tables import Job


class DatasetRepository:
    """All datasets of a deployment. Each query returns only those that the given owner can use."""

    def __init__(self, settings: Settings, database: Reader) -> None:
        self._settings, self._database = settings, database
        self._files = UploadFiles.of(settings)

    def catalogue(self, owner: str | None) -> list[DatasetInfo]:
        """All datasets that ``owner`` can use: the uploads, the built-in ones, then the folders; last, those that have
        to be downloaded."""
        rows = self._database.query(uploads.listed, owner=owner)
        by_name = [list(versions) for _, versions in groupby(rows, key=lambda row: row.name)]
        upload_infos = [uploads.info_of(versions[0], versions) for versions in by_name]
        uploaded_names = {info.name for info in upload_infos}
        others = (info for info in catalogue(self._settings.data) if info.name not in uploaded_names)
        return sorted([*upload_infos, *others], key=lambda info: not info.available)

    def describe(self, name: str, owner: str | None) -> DatasetInfo:
        """One dataset; an upload takes precedence over a folder with the same name.

        Raises:
            DatasetNotFound: it does not exist, or belongs to another owner.
            DatasetBroken: the files of the folder are inconsistent.
        """
        return self._find(name, owner) or self._folder(name, owner)

    def _folder(self, name: str, owner: str | None) -> DatasetInfo:
        try:
            return describe(name, self._settings.data)
        except DatasetNotFound as error:
            available = [info.name for info in self.catalogue(owner)]
            raise DatasetNotFound(name, available, closest(name, available)) from error

    def of_job(self, job: Job) -> DatasetInfo:
        """The dataset version that a job is pinned to, even if its owner has deleted it or uploaded a newer version.

        Raises:
            DatasetNotFound, DatasetBroken: see ``describe``.
            DatasetChanged: the job started with other data.
        """
        find = self._folder  # at the submission, no upload had this name
        if job.upload_id is not None:
            row = self._database.query(uploads.of_id, job.upload_id)
            if row is not None:
                return uploads.info_of(row).divided(Split.of(job.resolved))
            find = self.describe
        info = find(str(job.resolved["dataset"]["name"]), job.owner).divided(Split.of(job.resolved))
        if job.dataset_sha256 is None:
            return info
        if info.sha256 not in (None, job.dataset_sha256):
            raise DatasetChanged(info.name, job.dataset_sha256, str(info.sha256))
        return replace(info, pinned_sha256=job.dataset_sha256)

    def look_up(self, name: str, owner: str | None) -> DatasetInfo:
        """One dataset, even if its files are inconsistent; ``problem`` then has the reason.

        Raises:
            DatasetNotFound: see ``describe``.
        """
        try:
            return self.describe(name, owner)
        except DatasetBroken:
            listed = {info.name: info for info in self.catalogue(owner)}
            if name not in listed:
                raise
            return listed[name]

    def load(self, info: DatasetInfo, *, progress: Progress | None = None) -> Dataset:
        """Load the arrays of a dataset; ``progress`` is called during a download.

        Raises:
            DatasetChanged: the data differs from the data with which the job started.
            DatasetError: see ``cache.load``.
            ArtifactUnreadable: the store of an upload does not respond now.
        """
        dataset = self._load(info, progress)
        return dataset if info.split is None else cache.divide(dataset, info.split)

    def _load(self, info: DatasetInfo, progress: Progress | None) -> Dataset:
        if info.upload_id is None:
            dataset = cache.load(
                info.name, self._settings.data, cache=self._arrays(), copies=self._files, progress=progress
            )
            if info.pinned_sha256 not in (None, dataset.sha256):
                raise DatasetChanged(info.name, str(info.pinned_sha256), dataset.sha256)
            return dataset
        try:
            return self._load_upload(info, info.upload_id, progress or (lambda received, total: None))
        except ArtifactUnreadable:
            raise
        except (ArtifactDamaged, *INCOMPLETE) as error:
            advice = "Restore its files, or delete the dataset and upload it again"
            raise DatasetUnavailable(info.name, f"the files of this upload cannot be read ({error})", advice) from error

    def _load_upload(self, info: DatasetInfo, upload_id: str, progress: Progress) -> Dataset:
        if (folder := self._files.local_folder(upload_id)) is not None:
            return cache.open_arrays(folder, info)

        def copy(folder: Path) -> None:
            self._files.copy_to(folder, upload_id, str(info.sha256), lambda copied: progress(copied, None))

        def use(folder: Path) -> Dataset:
            return cache.open_arrays(folder, info)

        return self._arrays().open(upload_id, info.name, use, copy, on_wait=lambda: progress(0, None))

    def _arrays(self) -> ArrayCache:
        return ArrayCache(self._settings.datasets_cache, self._settings.cache_bytes)

    def _find(self, name: str, owner: str | None) -> DatasetInfo | None:
        try:
            base_name, digits = uploads.parts(name)
        except ValueError:
            return None
        if not may_be_named(base_name):
            return None
        rows = self._database.query(uploads.versions, base_name, owner=owner)
        row = next((row for row in rows if row.sha256.startswith(f"sha256:{digits}")), None)
        return uploads.info_of(row, rows) if row is not None else None
