"""Move a service to another artifact store while it runs.

Files are copied by row, and each copy is read back. Then the database gets the id of the new store: from this
transaction on, no row is committed for a file in the previous one (``artifact_rows.check_store``), and no worker claims
jobs, since the new store has no id yet. The last pass copies what was stored until then, and the id in the new store
ends the migration: processes that use it can start.

Until then the file ``MARKER`` in the new store has both ids, with which an interrupted migration continues. A journal
in a folder of this machine has the files that need not be copied again; without it, they are compared.

A store that the service has used before is named in the file ``FORMER`` of the one that it uses now. It loses its id
when a migration back begins, and gets a new one at the end; what is left in it is compared, file by file.

Reading through to the previous store would need its address and credentials on every machine. Cost: a query for each
epoch; from the switch to the restart, no job is claimed, and each running one trains an epoch again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from sqlalchemy import select, text, update
from sqlalchemy.exc import OperationalError

from service.datasets.uploads import UploadFiles
from service.errors import ServiceError, WrongStore
from service.jobs import worker_registry
from service.maintenance import named_files, store_id
from service.maintenance.named_files import NamedFile
from service.runtime.failpoints import failpoint
from service.storage.artifacts import ID_FILE, ArtifactDamaged, ArtifactStore, ArtifactUnreadable
from service.storage.database import Database, now_ms
from service.storage.ids import new_id
from service.storage.tables import Store, Upload

MARKER: Final = "store-migration"
FORMER: Final = "former-stores"
"""The file with the stores that the service has used before this one: for each, a line with its id and the time at
which it was replaced, in milliseconds since 1970."""
_LATE_MS: Final = 3600 * 1000
"""A store that was replaced gets no file later than this, unless another service uses it."""
_CONCURRENT_COPIES: Final = 4
_MAX_PASSES: Final = 5
_SMALL_PASS: Final = 50
"""A pass that copied no more files than this is followed by the switch."""
_MAX_WAIT_S: Final = 30.0
"""For workers to notice the switch: they look every five seconds."""
_POLL_S: Final = 0.5


class MigrationError(ServiceError):
    """A store cannot be migrated; the message says what to do."""


@dataclass(slots=True)
class MigrationReport:
    """What a migration did.

    Attributes:
        copied, size_bytes: the files that this run copied.
        present: the number of files that earlier runs had copied.
        damaged: missing or damaged files that rows name; they are not in the new store.
        switched: whether the service uses the new store.
        waiting: whether workers still claim jobs although the store was replaced.
    """

    store: str
    copied: int = 0
    size_bytes: int = 0
    present: int = 0
    damaged: list[str] = field(default_factory=list)
    switched: bool = False
    waiting: bool = False


Progress = Callable[[int, int], None]
"""Called with the number of files in the new store, and that of all files."""


def migrate(
    database: Database,
    source_files: UploadFiles,
    target_files: UploadFiles,
    *,
    home: Path,
    progress: Progress,
    copy_only: bool = False,
    skip_damaged: bool = False,
) -> MigrationReport:
    """Copy all files and make the target's store that of the service; continues an interrupted migration.

    Args:
        home: the folder for the journal.
        copy_only: copy without the switch.
        skip_damaged: switch although files are missing or damaged; otherwise, the report names them.

    Raises:
        MigrationError: the stores are the same, or the target is in use, or another command migrates.
        WrongStore: the source is not the store of the database.
        OSError: a store cannot be reached, or does not respond now; the next call continues.
    """
    source, target = source_files.store, target_files.store
    report = MigrationReport(target.address)
    with _open_journal(home) as journal:
        ids = _Ids.find(database, source, target)
        if ids.is_complete:
            target.remove([MARKER])  # if the run that completed it was interrupted
            report.switched = True
            return report
        copier = _Copier(database, source_files, target_files, _Journal(journal, ids.target), report, progress)
        copier.may_be_present = not ids.is_new
        if not ids.is_switched:
            before = math.inf
            for _ in range(_MAX_PASSES):
                # If as much was stored during a pass as it copied, another one would be no shorter.
                if (copied := copier.run_pass()) <= _SMALL_PASS or copied >= before:
                    break
                before = copied
            if copy_only or (report.damaged and not skip_damaged):
                return report
            try:
                _switch(database, ids)
            except OperationalError as error:
                raise MigrationError(
                    "the database is busy or does not respond, and the service was not moved: run the command again"
                ) from error
            failpoint("store_switched")
        copier.run_pass()
        report.waiting = not _wait_for_workers(database)
        former = {ids.source: round(time.time() * 1000)} | _read_former(source)
        lines = [f"{store} {replaced_ms or ''}".rstrip() for store, replaced_ms in former.items()]
        target.replace(FORMER, "".join(f"{line}\n" for line in lines).encode())
        target.create(ID_FILE, ids.target.encode())
        if target.read_id() != ids.target:
            raise MigrationError(f"{target.address} got the id of another store meanwhile: migrate to another prefix")
        failpoint("store_published")
        report.switched = True
        target.remove([MARKER])
        journal.truncate(0)
    return report


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ids:
    """The ids of both stores, and how far a migration between them is."""

    source: str
    target: str
    is_new: bool = False
    is_switched: bool = False
    is_complete: bool = False

    @classmethod
    def find(cls, database: Database, source: ArtifactStore, target: ArtifactStore) -> _Ids:
        """Read them, or begin a migration."""
        found, current = target.read_id(), source.read_id() or ""
        if source.address.rstrip("/") == target.address.rstrip("/") or (found and found == current):
            raise MigrationError(f"{source.address} and {target.address} are the same store: name another one")
        with database.read() as session:
            registered = session.scalar(select(Store.id))
        if found and found == registered:
            return cls(source="", target=found, is_switched=True, is_complete=True)
        former, marked = _read_former(source), _read_marker(target)
        if found and found not in former:
            raise MigrationError(
                f"{target.address} is the store {found} of another service: name an empty folder or another prefix. If "
                f"this service has used it, and an earlier release has moved it, append the line {found} to the file "
                f"{FORMER} in {source.address}"
            )
        is_abandoned = marked is not None and (marked["to"] == found or marked["from"] in former)
        is_new = not found and marked is None
        if marked is None or is_abandoned:
            store_id.verify(database, source)
            current = source.read_id() or ""  # of a service that has not started yet, it is from now on
            if found:
                _refuse_if_used(target, found, former[found])
            if is_new and any(next(target.stored(folder), None) is not None for folder in (None, "datasets")):
                raise MigrationError(f"there are files in {target.address}: name an empty folder or another prefix")
            marker = {"from": current, "to": new_id("str")}
            store = target.replace if is_abandoned else target.create
            store(MARKER, json.dumps(marker).encode())
            marked = _read_marker(target) or marker
            target.check_writable()
        ids = cls(source=marked["from"], target=marked["to"], is_new=is_new, is_switched=registered == marked["to"])
        if current != ids.source:
            raise MigrationError(
                f"a migration from the store {ids.source} to {target.address} was interrupted, and {source.address} is "
                "another store: name the former"
            )
        if not ids.is_switched:
            store_id.verify(database, source)
        if found:
            failpoint("store_claimed")
            target.remove([ID_FILE])
        return ids


def _read_former(store: ArtifactStore) -> dict[str, int | None]:
    """When the stores were replaced that the service of this one has used before; ``None``: it is not known."""
    try:
        with store.open(FORMER) as file:
            lines = [line.split() for line in file.read().decode(errors="replace").splitlines()]
    except ArtifactUnreadable as error:
        raise OSError(error.reason) from error
    except ArtifactDamaged:
        return {}
    return {line[0]: int(line[1]) if len(line) > 1 and line[1].isdecimal() else None for line in lines if line}


def _refuse_if_used(store: ArtifactStore, found: str, replaced_ms: int | None) -> None:
    """Raise MigrationError if a former store got files after it was replaced: a copy of the service uses it."""
    if replaced_ms is None:
        return
    silent_s = time.time() - (replaced_ms + _LATE_MS) / 1000
    for folder in (None, "datasets"):
        for item in store.stored(folder):
            is_file = not item.is_derived and not Path(item.path).name.startswith(".")
            if is_file and item.age_s < silent_s:
                raise MigrationError(
                    f"{item.path} was stored in {store.address} after the service had moved away: a copy of the "
                    f"service uses the store {found}. Name an empty folder or another prefix"
                )


def _read_marker(target: ArtifactStore) -> dict[str, str] | None:
    try:
        with target.open(MARKER) as file:
            marker = json.loads(file.read())
        return {"from": str(marker["from"]), "to": str(marker["to"])}
    except ArtifactUnreadable as error:
        raise OSError(error.reason) from error
    except ArtifactDamaged:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise MigrationError(f"{target.address} has a damaged file {MARKER}: remove it, or name another") from error


class _Journal:
    """The ids of the rows whose files are in the new store, and intact."""

    def __init__(self, file: IO[str], target_id: str) -> None:
        self._file = file
        lines = file.read().split("\n")
        self.done: set[str] = set()
        if lines[0] == target_id:
            self.done = set(lines[1:-1])  # the last line is empty, or unfinished
            file.write("\n")
        else:
            file.seek(0)
            file.truncate()
            file.write(f"{target_id}\n")
        file.flush()

    def add(self, row_id: str) -> None:
        self.done.add(row_id)
        self._file.write(f"{row_id}\n")
        self._file.flush()


@contextmanager
def _open_journal(home: Path) -> Iterator[IO[str]]:
    """Open the journal for one command at a time."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / f"{MARKER}.journal").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise MigrationError("another migration of this service is running") from error
        file.seek(0)
        try:
            yield file
        finally:
            if os.fstat(file.fileno()).st_size == 0:
                Path(file.name).unlink(missing_ok=True)


class _Copier:
    """Copies the files that rows name, in passes over all rows."""

    def __init__(
        self,
        database: Database,
        source: UploadFiles,
        target: UploadFiles,
        journal: _Journal,
        report: MigrationReport,
        progress: Progress,
    ) -> None:
        self._database, self._source, self._target = database, source, target
        self._journal, self._report, self._progress = journal, report, progress
        self.may_be_present = True
        """From an earlier run, which did not note it."""
        self._report.present = len(journal.done)

    def run_pass(self) -> int:
        """Copy the files of all rows that are not in the journal; returns their number."""
        with ThreadPoolExecutor(_CONCURRENT_COPIES) as pool:
            try:
                return self._run_pass(pool)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _run_pass(self, pool: ThreadPoolExecutor) -> int:
        self._report.damaged.clear()
        copied_before = self._report.copied
        with self._database.read() as session:
            total = named_files.count(session)
        self._progress(min(len(self._journal.done), total), total)
        for page in named_files.pages(self._database):
            batch = [file for file in page if file.row_id not in self._journal.done]
            for file, outcome in zip(batch, pool.map(self._copy, batch), strict=True):
                if isinstance(outcome, ArtifactDamaged):
                    if self._exists(file):
                        self._report.damaged.append(str(outcome))
                    continue
                self._journal.add(file.row_id)
                if outcome:
                    self._report.copied += 1
                    self._report.size_bytes += file.size_bytes
                else:
                    self._report.present += 1
                self._progress(min(len(self._journal.done), total), total)
                failpoint("file_migrated", self._report.copied)
        self.may_be_present = False
        return self._report.copied - copied_before

    def _copy(self, file: NamedFile) -> bool | ArtifactDamaged:
        """Copy a file, unless its copy is there, and read it back; returns whether it was copied, or why not."""
        if self.may_be_present and _is_intact(self._target, file):
            return False
        try:
            if file.table is Upload:
                self._copy_upload(file)
            else:
                self._copy_file(file)
        except ArtifactUnreadable as error:
            raise OSError(f"{error}; the migration continues when the same command is run again") from error
        except ArtifactDamaged as error:
            return error
        if not _is_intact(self._target, file):
            raise OSError(f"{self._target.store.address} returns other bytes than were stored in {file.path}")
        return True

    def _copy_file(self, file: NamedFile) -> None:
        data, target = self._source.store.read(file.path, file.sha256), self._target.store
        try:
            target.put_all({file.path: data})
        except FileExistsError:
            if not _is_intact(self._target, file):
                target.remove([file.path])
                target.put_all({file.path: data})

    def _copy_upload(self, file: NamedFile) -> None:
        self._source.check(file.path, file.sha256)
        self._target.copy_from(self._source, file.path)

    def _exists(self, file: NamedFile) -> bool:
        with self._database.read() as session:
            return session.get(file.table, file.row_id) is not None


def _is_intact(files: UploadFiles, file: NamedFile) -> bool:
    """Whether the file is in a store; reads it without keeping it in memory."""
    try:
        if file.table is Upload:
            files.check(file.path, file.sha256)
            return True
        with files.store.open(file.path) as content:
            return hashlib.file_digest(content, "sha256").hexdigest() == file.sha256
    except ArtifactUnreadable as error:
        raise OSError(f"{error}; the migration continues when the same command is run again") from error
    except ArtifactDamaged:
        return False


def _switch(database: Database, ids: _Ids) -> None:
    """Register the new store: transactions that have inserted rows end before, and later ones are refused."""
    with database.write() as session:
        if not database.is_sqlite:
            session.execute(text("LOCK TABLE artifacts, uploads IN SHARE ROW EXCLUSIVE MODE"))
        values = {"id": ids.target, "host": socket.gethostname(), "created_ms": now_ms()}
        switched = session.execute(update(Store).where(Store.id == ids.source).values(values))
        if switched.rowcount != 1:  # type: ignore[attr-defined]  # a cursor's result
            raise WrongStore("the database got another store meanwhile: start the migration again")


def _wait_for_workers(database: Database) -> bool:
    """Wait until no worker claims jobs: one that did not notice the switch would not find the files of new ones."""
    deadline = time.monotonic() + _MAX_WAIT_S
    while time.monotonic() < deadline:
        with database.read() as session:
            if not worker_registry.claiming_workers(session):
                return True
        time.sleep(_POLL_S)
    return False
