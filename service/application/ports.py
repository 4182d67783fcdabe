"""What the use cases need from above or beside them: whoever starts the product supplies it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from service.access.audit import Actor
from service.datasets.info import DatasetInfo, ImportedDataset, OnShare, PhotoOptions, TableOptions
from service.storage.tables import Job


class DatasetCatalogue(Protocol):
    """The datasets that an owner may name; ``DatasetRepository`` is one."""

    def catalogue(self, owner: str | None) -> list[DatasetInfo]:
        """All of them."""

    def describe(self, name: str, owner: str | None) -> DatasetInfo:
        """One of them."""

    def look_up(self, name: str, owner: str | None) -> DatasetInfo:
        """One of them, also one whose files are damaged."""

    def of_job(self, job: Job) -> DatasetInfo:
        """The data that a job is pinned to."""


class ImportFiles(Protocol):
    """Reads an upload's files and writes its arrays into a folder."""

    def __call__(
        self,
        files: Mapping[str, Path],
        folder: Path,
        *,
        fraction: float | None,
        photos: PhotoOptions,
        table: TableOptions | None,
        on_share: OnShare,
    ) -> ImportedDataset:
        """Import the files."""


class AdmissionRefused(Exception):
    """One more job of this owner is not admitted now."""


def owner_of(by: Actor | None) -> str | None:
    """Whose objects an actor may see; ``None``: all, where no keys are required."""
    return by.owner if by is not None else None
