"""Health checks of everything that the service depends on, with advice for each failure."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import redis
from sqlalchemy import func, make_url, select, text
from sqlalchemy.exc import SQLAlchemyError

from migrations.upgrade import find_revision, head
from service.access import audit_seals
from service.errors import SettingsError, UnknownSchema, WrongStore
from service.jobs import leases, worker_registry
from service.maintenance import file_checks, scheduler_heartbeat, store_id, store_probes
from service.maintenance.file_checks import Damage
from service.runtime import broker, server_promises
from service.runtime.settings import Settings
from service.states import Status
from service.storage.database import Database, DatabaseDamaged, now_ms
from service.storage.stores import open_store
from service.storage.tables import Job
from service.wording import counted

_MAX_CLOCK_OFFSET_S: Final = 2.0
_MIN_FREE_BYTES: Final = 1_000_000_000
_MIN_FREE_SHARE: Final = 0.05
_TIMEOUT_S: Final = 3.0
_MAX_UNSEALED_S: Final = 300.0

_UPGRADE: Final = (
    "start the service (tapeline up upgrades it), or run `python -m migrations.upgrade` "
    "(compose: docker compose run --rm migrate)"
)
_TLS_ADVICE: Final = (
    "check TAPELINE_CA, or {} in {}: the authority must have issued the server's certificate, which names this host"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """The result of one check."""

    name: str
    ok: bool
    detail: str
    advice: str | None = None


class _Fault(Exception):
    """A check failed, with what it found and a remedy."""

    def __init__(self, detail: str, advice: str) -> None:
        super().__init__(detail)
        self.advice = advice


def examine(
    settings: Settings, database: Database, *, broker_url: str | None, with_files: bool = True
) -> Iterator[Diagnosis]:
    """Run the checks, except those that depend on a failed one.

    Args:
        broker_url: from the settings, or of the embedded broker.
        with_files: report what the scheduler has found in stored files; otherwise, the caller reads them.
    """
    reachable = _run_check("database", lambda: _check_database(settings, database))
    yield reachable
    has_schema = False
    if reachable.ok:
        schema = _run_check("schema", lambda: _check_schema(database))
        yield schema
        has_schema = schema.ok
        if has_schema:
            yield _run_check("workers", lambda: _check_workers(settings, database))
            yield _run_check("scheduler", lambda: _check_scheduler(settings, database))
            yield _run_check("audit log", lambda: _check_audit_log(settings, database))
        yield _run_check("clocks", lambda: _check_clocks(database))
    yield _run_check("broker", lambda: _check_broker(broker_url))
    yield _run_check("artifacts", lambda: _check_store(settings, database if has_schema else None))
    if has_schema and with_files:
        yield _run_check("files", lambda: _check_files(settings, database))
    for folder in _disks(settings):
        yield _run_check("disk", partial(_check_disk, folder))
    yield _run_check("settings", lambda: _list_changed(settings))


def _run_check(name: str, check: Callable[[], str]) -> Diagnosis:
    try:
        return Diagnosis(name=name, ok=True, detail=check())
    except _Fault as fault:
        return Diagnosis(name=name, ok=False, detail=str(fault), advice=fault.advice)
    except Exception as error:  # noqa: BLE001 - any exception is the result of the check
        first_line = str(error).strip().partition("\n")[0]
        return Diagnosis(name=name, ok=False, detail=f"{type(error).__name__}: {first_line}", advice="see the detail")


def _check_database(settings: Settings, database: Database) -> str:
    url = make_url(settings.database_url)
    address = url.render_as_string(hide_password=True)
    if database.is_sqlite and url.database and not Path(url.database).exists():
        advice = "start the service once (tapeline up), or set TAPELINE_HOME or TAPELINE_DATABASE_URL"
        raise _Fault(f"file {url.database} does not exist", advice)
    started_at = time.monotonic()
    try:
        with database.engine.connect() as connection:
            connection.execute(text("SELECT 1"))
            response_ms = 1000 * (time.monotonic() - started_at)
            if database.is_sqlite and (fault := connection.scalar(text("PRAGMA quick_check(1)"))) != "ok":
                raise DatabaseDamaged(url.database, str(fault).replace("\n", " "))
            raw: Any = connection.connection.driver_connection
            encrypted = ", over TLS" if not database.is_sqlite and raw.pgconn.ssl_in_use else ""
        warning = server_promises.warning_of(database.engine)
    except DatabaseDamaged as error:
        raise _Fault(error.detail, error.remedy) from error
    except SQLAlchemyError as error:
        if unkept := server_promises.unkept(error):
            raise _Fault(f"{address}: {unkept}", "the service refuses to start on it, until that is done") from error
        reason = str(getattr(error, "orig", error)).strip().partition("\n")[0]
        advice = (
            _TLS_ADVICE.format("sslmode and sslrootcert", "TAPELINE_DATABASE_URL")
            if "certificate" in reason
            else "start it, and check host, password and TAPELINE_DATABASE_URL "
            "(compose: docker compose up -d postgres; docker compose logs postgres)"
        )
        raise _Fault(f"{address} does not respond: {reason}", advice) from error
    return f"{address} responds in {response_ms:.0f} ms{encrypted}{f'. Warning: {warning}' if warning else ''}"


def _check_schema(database: Database) -> str:
    with database.engine.connect() as connection:
        try:
            revision = find_revision(connection)
        except UnknownSchema as error:
            raise _Fault(f"the database is at revision {error.revision}, {error.problem}", error.remedy) from error
    if revision != head():
        raise _Fault(f"the database is at revision {revision or 'none'}; this version needs {head()}", _UPGRADE)
    return f"revision {revision} is current"


def _check_workers(settings: Settings, database: Database) -> str:
    with database.read() as session:
        alive = worker_registry.live_workers(session)
        impediment = worker_registry.impediment(session, settings)
        waiting = session.scalar(select(func.count()).where(Job.status == Status.QUEUED)) or 0
    if not alive:
        is_storage = impediment is not None and impediment.reason == "storage"
        raise _Fault(
            f"no worker was seen within the last minute{', and the disk is full' if is_storage else ''}; jobs "
            f"waiting: {waiting}",
            "free disk space: tapeline gc lists what can be deleted"
            if is_storage
            else "start one: tapeline up, or python -m workers (compose: docker compose up -d worker; "
            "docker compose logs worker)",
        )
    if blocked := [row for row in alive if row.blocked is not None]:
        raise _Fault(
            "; ".join(f"{row.host}: {(row.blocked or {})['message']}" for row in blocked),
            f"{len(blocked)} of {len(alive)} claim no jobs until this is mended: free disk space or memory "
            "there, or give it the store of the service; they check every 5 s",
        )
    slots, running = sum(row.slots for row in alive), sum(row.running for row in alive)
    return f"{len(alive)} alive, {running} of {slots} slots busy; jobs waiting: {waiting}"


def _check_scheduler(settings: Settings, database: Database) -> str:
    overdue_before_ms = now_ms() - int(3 * settings.lease_s * 1000)
    with database.read() as session:
        last = scheduler_heartbeat.last_beat(session)
        query = select(func.count()).where(Job.status == Status.RUNNING, Job.lease_expires_ms < overdue_before_ms)
        expired_count = session.scalar(query) or 0
    start = "start it: tapeline up, or python -m workers.scheduler (compose: docker compose up -d scheduler)"
    if last is None:
        raise _Fault(f"no scheduler of this version has run. {scheduler_heartbeat.STOPPED}", start)
    if last.is_silent:
        raise _Fault(f"{last.host} was last seen {last.age_s:.0f} s ago. {scheduler_heartbeat.STOPPED}", start)
    if expired_count:
        raise _Fault(
            f"{last.host} runs, but running jobs have an expired lease: {expired_count}",
            "look at its log (compose: docker compose logs scheduler)",
        )
    return f"{last.host} was last seen {last.age_s:.0f} s ago; no running job has an expired lease"


def _check_audit_log(settings: Settings, database: Database) -> str:
    with database.read() as session:
        last, unsealed_for_s = audit_seals.newest(session), audit_seals.unsealed_for_s(session)
    if unsealed_for_s > _MAX_UNSEALED_S:
        raise _Fault(
            f"entries have not been sealed for {unsealed_for_s / 60:.0f} minutes",
            "start the scheduler, which seals them, or check its log: tapeline up, python -m workers.scheduler "
            "(compose: docker compose logs scheduler)",
        )
    sealed = f"sealed up to entry {last[0].last_id}" if last else "nothing is sealed yet"
    days = settings.keep_audit_days
    retention = f"for {days:g} days" if days else "forever"
    return f"{sealed}; kept {retention} (TAPELINE_KEEP_AUDIT_DAYS)"


def _check_clocks(database: Database) -> str:
    before = time.time()
    database_time = leases.clock(database) / 1000
    offset = database_time - (before + time.time()) / 2
    if abs(offset) > _MAX_CLOCK_OFFSET_S:
        raise _Fault(
            f"the database's clock is {abs(offset):.1f} s {'ahead of' if offset > 0 else 'behind'} this machine's",
            "synchronize both with NTP: leases use the database's clock alone, but displayed times disagree",
        )
    return f"{1000 * abs(offset):.0f} ms apart"


def _check_broker(broker_url: str | None) -> str:
    if broker_url is None:
        advice = "start the service (tapeline up), or set TAPELINE_BROKER_URL; until then workers poll every 5 s"
        raise _Fault("no broker is configured, and no embedded broker is running", advice)
    parts = urlsplit(broker_url)
    address = f"{parts.scheme}://{parts.hostname or ''}{parts.path}"
    try:
        broker.require_kombu()
    except SettingsError as error:
        raise _Fault(str(error), "install it in every process, then restart the workers") from error
    try:
        broker.probe(broker_url, timeout_s=_TIMEOUT_S)
    except redis.RedisError as error:
        advice = (
            _TLS_ADVICE.format("ssl_ca_certs", "TAPELINE_BROKER_URL")
            if "CERTIFICATE_VERIFY_FAILED" in str(error)
            else "start it, and check TAPELINE_BROKER_URL (compose: docker compose up -d redis); "
            "until then workers poll every 5 s"
        )
        raise _Fault(f"{address} accepts no messages: {error}", advice) from error
    return f"{address} accepts messages"


def _check_store(settings: Settings, database: Database | None) -> str:
    """Whether the store is writable, and that of the database, if there is one."""
    store = open_store(settings)
    try:
        found = store_probes.examine(store, url=settings.store, endpoint=settings.store_endpoint, ca=settings.ca)
        if database is not None:
            store_id.verify(database, store)
    except (OSError, WrongStore) as error:
        advice = "mount it, make it writable for this user, or set TAPELINE_STORE to another one"
        detail = str(error)
        if isinstance(error, OSError):
            detail = f"cannot write to {store.address}: {(error.strerror or detail).removeprefix(f'{store.address}: ')}"
        raise _Fault(detail, advice) from error
    return found


def _check_files(settings: Settings, database: Database) -> str:
    """What the scheduler has found in stored files."""
    state = file_checks.read_state(database)
    if state.damaged:
        raise _Fault(
            _list_damaged(state.damaged), "tapeline doctor --files reads all files again, and has the remedies"
        )
    if state.finished_s is not None:
        return f"none is known to be damaged; all were read within {state.finished_s / 3600:.0f} hours"
    if settings.scrub_bytes == 0:
        return "they are never read again (TAPELINE_SCRUB_BYTES=0); tapeline doctor --files does"
    return "none is known to be damaged; the scheduler has not read all of them yet"


def diagnose_files(checked: int, damaged: Sequence[Damage]) -> Diagnosis:
    """The result of reading all stored files."""
    if not damaged:
        return Diagnosis(name="files", ok=True, detail=f"{counted(checked, 'file')} read, none is damaged")
    first = damaged[0]
    advice = f"{first.meaning}; {first.remedy}" if len(damaged) == 1 else "each is listed below with its remedy"
    return Diagnosis(name="files", ok=False, detail=_list_damaged(damaged), advice=advice)


def _list_damaged(damaged: Sequence[Damage]) -> str:
    first = damaged[0]
    others = f", and {counted(len(damaged) - 1, 'other file')}" if len(damaged) > 1 else ""
    of_job = f" of {first.job}" if first.job else ""
    return f"{first.file}{of_job} is damaged ({first.path}: {first.reason}){others}"


def _disks(settings: Settings) -> Iterable[Path]:
    """A folder on each disk that the service uses."""
    folders: dict[int, Path] = {}
    for folder in (settings.artifacts, settings.data, settings.home):
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        folders.setdefault(existing.stat().st_dev, existing)
    return folders.values()


def _check_disk(folder: Path) -> str:
    usage = shutil.disk_usage(folder)
    detail = f"{usage.free / 1e9:.1f} of {usage.total / 1e9:.1f} GB free at {folder}"
    if usage.free < max(_MIN_FREE_BYTES, _MIN_FREE_SHARE * usage.total) and usage.free < 20 * _MIN_FREE_BYTES:
        raise _Fault(
            detail,
            "list what can be deleted with tapeline gc; shorten the retention with TAPELINE_KEEP_CHECKPOINTS_DAYS and "
            "TAPELINE_KEEP_JOBS_DAYS",
        )
    return detail


def _list_changed(settings: Settings) -> str:
    """The names of the settings that are not at their defaults; some values are secrets."""
    defaults = Settings.from_env({"TAPELINE_HOME": str(settings.home)}, cores=settings.workers).to_env()
    changed = [name for name, value in settings.to_env().items() if value != defaults[name]]
    return f"TAPELINE_HOME is {settings.home}; not at their defaults: {', '.join(changed) or 'none'}"
