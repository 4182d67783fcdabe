"""Interfaces that the use cases require; the program that starts the service supplies the implementations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from service.access.audit import Actor
from service.datasets.info import DatasetInfo, ImportedDataset, OnProgress, PhotoOptions, TableOptions
from service.storage.tables import Job


class DatasetCatalogue(Protocol):
    """The datasets that are visible to an owner. ``DatasetRepository`` implements this."""

    def catalogue(self, owner: str | None) -> list[DatasetInfo]:
        """All datasets that the owner can use."""

    def describe(self, name: str, owner: str | None) -> DatasetInfo:
        """One dataset."""

    def look_up(self, name: str, owner: str | None) -> DatasetInfo:
        """One dataset, even if its files are damaged."""

    def of_job(self, job: Job) -> DatasetInfo:
        """The dataset version that a job is pinned to."""


class ImportFiles(Protocol):
    """Reads the files of an upload and writes their arrays into a folder."""

    def __call__(
        self,
        files: Mapping[str, Path],
        folder: Path,
        *,
        fraction: float | None,
        photos: PhotoOptions,
        table: TableOptions | None,
        on_progress: OnProgress,
    ) -> ImportedDataset:
        """Import the files."""


Admit = Callable[[str | None, int, int], None]
"""Checks the quotas of an owner before this many further jobs are stored, whose files are expected to take this many
bytes; raises ``AdmissionRefused`` if one is exhausted."""


class AdmissionRefused(Exception):
    """The owner may not submit these jobs now."""


def admit_all(owner: str | None, count: int, expected_bytes: int) -> None:
    """Admit jobs without a quota."""


def owner_of(by: Actor | None) -> str | None:
    """The owner whose objects an actor may see; ``None`` means all, if no keys are required."""
    return by.owner if by is not None else None
