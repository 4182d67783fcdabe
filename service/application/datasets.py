"""Use cases of uploaded datasets: add and delete."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from service.access.audit import Actor, owner_of
from service.application.specs import DatasetCatalogue
from service.datasets import uploads
from service.datasets.formats.options import PhotoOptions, TableOptions
from service.datasets.info import DATASET_NAME, DatasetInfo, ImportedDataset, OnProgress
from service.datasets.uploads import UploadFiles
from service.errors import DatasetFixed, DatasetNameTaken, NoSpaceLeft, UploadExists, WrongStore
from service.storage import ids
from service.storage.database import Database
from service.storage.tables import Upload


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedFiles:
    """An upload that has been received completely."""

    name: str
    files: Mapping[str, Path]
    fraction: float | None
    """Fraction of each class to set aside for validation."""
    photos: PhotoOptions = field(default_factory=PhotoOptions)
    """Options for an archive of image files."""
    table: TableOptions | None = None
    """Options for a table."""
    spec: Mapping[str, Any] | None = None
    """A spec whose cost a dry run estimates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetUploads:
    """Operations on uploaded datasets.

    Attributes:
        import_files: reads the files of an upload, in a sandbox, and writes their arrays into a folder.
        at_most: maximum size in bytes of all datasets of an owner; 0 means no limit.
    """

    database: Database
    files: UploadFiles
    datasets: DatasetCatalogue
    import_files: Callable[..., ImportedDataset]
    at_most: int = 0

    def add(
        self,
        receive: Callable[[Path], ReceivedFiles],
        *,
        by: Actor | None = None,
        on_progress: OnProgress = lambda done: None,
    ) -> DatasetInfo:
        """Receive, import and store an upload.

        Args:
            receive: writes the files into the folder that it is given.
            on_progress: called with the fraction of the import that is done, first with 0 when the files have arrived.

        Raises:
            UploadRefused: the files are not a valid dataset.
            UploadExists, DatasetNameTaken, NoSpaceLeft, StorageFull, ArtifactUnreadable
        """
        owner = owner_of(by)
        with self.database.read() as session:
            uploads.check_space(session, owner, at_most=self.at_most)
        upload_id = ids.new_id("ds")
        received, imported = self._import(upload_id, receive, owner, on_progress)
        try:
            stored = self._store(upload_id, received.name, imported, by)
        except (UploadExists, NoSpaceLeft, WrongStore):
            self.files.discard(upload_id)
            raise
        if stored != upload_id:
            self.files.discard(upload_id)
        # After any other error, it is unknown whether the row was stored; the scheduler removes files without a row.
        return self.datasets.describe(received.name, owner)

    def try_out(
        self,
        receive: Callable[[Path], ReceivedFiles],
        *,
        by: Actor | None = None,
        on_progress: OnProgress = lambda done: None,
    ) -> tuple[ReceivedFiles, DatasetInfo]:
        """Receive and import an upload as ``add`` does, and store nothing."""
        upload_id = ids.new_id("ds")
        received, imported = self._import(upload_id, receive, owner_of(by), on_progress, stores=False)
        return received, uploads.info_of(_row(upload_id, received.name, imported, by))

    def publish(self, name: str, *, shared: bool, by: Actor | None = None) -> None:
        """Let all owners use an uploaded dataset, or only its owner.

        Raises:
            DatasetFixed, DatasetNotFound
        """
        owner = owner_of(by)
        is_valid = DATASET_NAME.fullmatch(name) is not None
        if not is_valid or not uploads.publish(self.database, name, shared=shared, owner=owner, by=by):
            self.datasets.look_up(name, owner)
            raise DatasetFixed(name)

    def delete(self, name: str, *, by: Actor | None = None) -> None:
        """Delete an uploaded dataset that no unfinished job uses.

        Raises:
            UploadInUse, DatasetNotFound, DatasetFixed
        """
        owner = owner_of(by)
        # PostgreSQL refuses a query for a text with NUL.
        may_exist = DATASET_NAME.fullmatch(name.partition("@")[0])
        removed_ids = uploads.remove(self.database, name, owner=owner, by=by) if may_exist else None
        if removed_ids is None:
            self.datasets.look_up(name, owner)
            raise DatasetFixed(name)
        for upload_id in removed_ids:
            self.files.discard(upload_id)

    def _import(
        self,
        upload_id: str,
        receive: Callable[[Path], ReceivedFiles],
        owner: str | None,
        on_progress: OnProgress,
        *,
        stores: bool = True,
    ) -> tuple[ReceivedFiles, ImportedDataset]:
        try:
            with self.files.scratch(upload_id) as folder:
                received = receive(folder)
                if received.name in {info.name for info in self.datasets.catalogue(owner) if info.upload_id is None}:
                    raise DatasetNameTaken(received.name)
                arrays = folder / "arrays"
                arrays.mkdir()
                on_progress(0.0)
                imported = self.import_files(
                    received.files,
                    arrays,
                    fraction=received.fraction,
                    photos=received.photos,
                    table=received.table,
                    on_progress=on_progress,
                )
                on_progress(1.0)
                if stores:
                    self.files.add(upload_id, arrays)
        except OSError as error:
            self.files.discard(upload_id)
            raise self.files.store.refusal(error) from error
        return received, imported

    def _store(self, upload_id: str, name: str, imported: ImportedDataset, by: Actor | None) -> str:
        row = _row(upload_id, name, imported, by)
        return uploads.store(self.database, row, store_id=self.files.store.id, at_most=self.at_most, by=by)


def _row(upload_id: str, name: str, imported: ImportedDataset, by: Actor | None) -> Upload:
    facts = asdict(imported)
    rows, columns, channels = (*(facts.pop("image_shape") or (0, 0)), 1)[:3]
    sides = {"image_rows": rows, "image_columns": columns, "image_channels": channels}
    return Upload(id=upload_id, owner=owner_of(by) or "", name=name, **sides, **facts)
