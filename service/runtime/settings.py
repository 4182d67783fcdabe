"""The environment, read once at the entry point of each process and passed down."""

from __future__ import annotations

import ipaddress
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Final, Self
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from service.errors import SettingsError


class Auth(StrEnum):
    """Whether the API requires keys."""

    AUTO = "auto"
    KEYS = "keys"
    LOCAL = "local"


MIN_KEY_LENGTH: Final = 16
"""Of keys in ``TAPELINE_API_KEYS``, in characters: shorter ones can be guessed."""

VARIABLES: Final = {
    "TAPELINE_HOME": "state folder of the embedded stack (default: .tapeline in the home folder)",
    "TAPELINE_HOST": "address that the web process binds to (default: 127.0.0.1)",
    "TAPELINE_PORT": "port of the web process (default: 8000)",
    "TAPELINE_WORKERS": "concurrent jobs per worker process (default: the processors that it may use)",
    "TAPELINE_WORKER_NAME": "name of a worker in lists and metrics: 40 of A-Z a-z 0-9 . _ - (default: the host name)",
    "TAPELINE_DATABASE_URL": "SQLAlchemy URL, PostgreSQL or SQLite (default: a SQLite file in TAPELINE_HOME)",
    "TAPELINE_DATABASE_PASSWORD_FILE": "file with the password for TAPELINE_DATABASE_URL (default: the URL's own)",
    "TAPELINE_BROKER_URL": "Redis or Valkey URL (default: an embedded broker in TAPELINE_HOME)",
    "TAPELINE_BROKER_PASSWORD_FILE": "file with the password for TAPELINE_BROKER_URL (default: the URL's own)",
    "TAPELINE_ARTIFACTS": "folder for checkpoints, samples and exports (default: artifacts in TAPELINE_HOME)",
    "TAPELINE_DATA": "folder of datasets, one subfolder each (default: data in TAPELINE_HOME)",
    "TAPELINE_AUTH": "API keys: auto (default; required unless bound to loopback), keys (required), local (off)",
    "TAPELINE_API_KEYS": "accepted keys besides those of `tapeline keys`, 16 characters or more, comma-separated",
    "TAPELINE_ALLOWED_HOSTS": "accepted host names besides local ones, comma-separated",
    "TAPELINE_OWNER_REQUESTS": "maximum requests per owner and minute (default: 100000; 0: no limit)",
    "TAPELINE_OWNER_QUEUED": "maximum queued jobs per owner (default: 200000; 0: no limit)",
    "TAPELINE_OWNER_RUNNING": "maximum running jobs per owner (default: 0, no limit)",
    "TAPELINE_OWNER_UPLOADS": "maximum uploaded bytes per owner and day (default: 10737418240; 0: no limit)",
    "TAPELINE_OWNER_DATASETS": "maximum bytes of all datasets of an owner (default: 53687091200; 0: no limit)",
    "TAPELINE_OWNER_ARTIFACTS": "maximum bytes of the files of all jobs of an owner (default: 0, no limit)",
    "TAPELINE_OWNER_STREAMS": "maximum open streams per owner and web process (default: 100; 0: no limit)",
    "TAPELINE_PROXIES": "number of trusted proxies that set X-Forwarded-For, -Proto and -Host (default: 0)",
    "TAPELINE_LEASE_S": "lease duration: seconds until a lost worker's jobs are requeued (default: 30; embedded: 15)",
    "TAPELINE_CHILD_JOBS": "jobs that a training process may train in turn (default: 100; 1: a process for each job)",
    "TAPELINE_CHILD_S": "age in seconds after which a training process gets no other job (default: 600)",
    "TAPELINE_CHILD_MEMORY": (
        "resident bytes after a job above which a training process gets no other job (default: 1073741824)"
    ),
    "TAPELINE_PORTABLE_BITS": "1: use only the common instruction set, for workers with different CPUs (default: 0)",
    "TAPELINE_VERIFY_REUSED": "fraction of reused results that are checked by training an epoch again (default: 0.01)",
    "TAPELINE_KEEP_JOBS_DAYS": "job retention: days from the end of a job to its deletion (default: 0, never)",
    "TAPELINE_KEEP_CHECKPOINTS_DAYS": (
        "checkpoint retention: days until only the best and the latest of an ended job are kept (default: 0, never)"
    ),
    "TAPELINE_KEEP_AUDIT_DAYS": "audit log retention: days until entries are removed, 1 or more (default: 0, never)",
}
"""Every setting, with its description in docs/configuration.md."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Quotas:
    """Limits per owner; 0: no limit. Without API keys there are no owners."""

    requests: int = 100_000
    queued: int = 200_000
    running: int = 0
    uploads: int = 10 * 1024**3
    datasets: int = 50 * 1024**3
    artifacts: int = 0
    streams: int = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class ChildLimits:
    """Limits up to which a training process gets another job after one that ended well."""

    jobs: int = 100
    age_s: float = 600.0
    memory_bytes: int = 1024**3


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The settings of a deployment. ``VARIABLES`` describes them."""

    home: Path
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int
    worker_name: str = ""
    """Empty: the host name."""
    database_url: str
    broker_url: str | None
    """``None``: the embedded stack starts its own broker."""
    artifacts: Path
    data: Path
    auth: Auth = Auth.AUTO
    api_keys: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    quotas: Quotas = Quotas()
    proxies: int = 0
    lease_s: float
    child_limits: ChildLimits = ChildLimits()
    portable_bits: bool = False
    verify_reused: float = 0.01
    keep_jobs_days: float = 0.0
    keep_checkpoints_days: float = 0.0
    keep_audit_days: float = 0.0

    @property
    def embedded_database(self) -> bool:
        """Whether the database is a SQLite file."""
        return self.database_url.startswith("sqlite")

    @property
    def keys_required(self) -> bool:
        """Whether requests need an API key."""
        match self.auth:
            case Auth.KEYS:
                return True
            case Auth.LOCAL:
                return False
            case Auth.AUTO:
                return not is_loopback(self.host)

    @property
    def datasets_cache(self) -> Path:
        """Folder of unpacked datasets: beside their sources, or in the home folder if that is read-only."""
        try:
            self.data.mkdir(parents=True, exist_ok=True)
            # Check the mode, too: root can write to a folder without write permission, but should not.
            writable = self.data.stat().st_mode & stat.S_IWUSR and os.access(self.data, os.W_OK)
        except OSError:
            writable = False
        return self.data / ".cache" if writable else self.home / "cache"

    @classmethod
    def from_env(cls, environ: Mapping[str, str], *, cores: int) -> Self:
        """Read the settings.

        Args:
            environ: usually ``os.environ``.
            cores: number of CPU cores, the default number of concurrent jobs per worker.

        Raises:
            SettingsError: a value is not valid; the message names every such variable.
        """
        unknown = sorted(name for name in environ if name.startswith("TAPELINE_") and name not in VARIABLES)
        faults = [f"{name} is not a setting of Tapeline" for name in unknown]

        def parse_number(name: str, default: float, *, low: float, high: float) -> float:
            text = environ.get(name, "").strip()
            if not text:
                return default
            try:
                value = float(text)
            except ValueError:
                value = float("nan")
            if not low <= value <= high:
                faults.append(f"{name} must be a number from {low:g} to {high:g}, not {text!r}")
                return default
            return value

        def parse_list(name: str) -> tuple[str, ...]:
            return tuple(entry.strip() for entry in environ.get(name, "").split(",") if entry.strip())

        home = Path(environ.get("TAPELINE_HOME") or Path.home() / ".tapeline").expanduser().absolute()
        if "?" in str(home):
            faults.append("TAPELINE_HOME must not contain a question mark: it has a special meaning in database URLs")
        database_url = environ.get("TAPELINE_DATABASE_URL") or f"sqlite:///{home / 'tapeline.db'}"
        if not database_url.startswith(("sqlite:///", "postgresql+psycopg://")):
            faults.append("TAPELINE_DATABASE_URL must begin with sqlite:/// or postgresql+psycopg://")
        if (path := database_url.removeprefix("sqlite:///")) != database_url:
            # Processes have different working folders: a path must mean the same file in all of them.
            database_url = f"sqlite:///{Path(path).absolute()}"
        broker_url = environ.get("TAPELINE_BROKER_URL") or None
        if broker_url and not broker_url.startswith(("redis://", "rediss://", "redis+socket://")):
            faults.append("TAPELINE_BROKER_URL must begin with redis://, rediss:// or redis+socket://")
        password = _read_password(environ, "TAPELINE_DATABASE_PASSWORD_FILE", faults)
        if password and not database_url.startswith("sqlite"):
            database_url = _with_password(database_url, password)
        if broker_url and (password := _read_password(environ, "TAPELINE_BROKER_PASSWORD_FILE", faults)):
            broker_url = _with_password(broker_url, password)
        if broker_url and broker_url.startswith("rediss://"):
            broker_url = _require_certificate(broker_url)
        auth = environ.get("TAPELINE_AUTH") or "auto"
        if auth not in list(Auth):
            faults.append(f"TAPELINE_AUTH must be auto, keys or local, not {auth!r}")
            auth = "auto"
        api_keys = parse_list("TAPELINE_API_KEYS")
        if any(len(key) < MIN_KEY_LENGTH for key in api_keys):
            faults.append(f"each key in TAPELINE_API_KEYS must have at least {MIN_KEY_LENGTH} characters")
        worker_name = environ.get("TAPELINE_WORKER_NAME", "").strip()
        if not re.fullmatch(r"[A-Za-z0-9._-]{0,40}", worker_name):
            faults.append(f"TAPELINE_WORKER_NAME must have up to 40 letters, digits and ._-, not {worker_name!r}")
        portable_bits = environ.get("TAPELINE_PORTABLE_BITS") or "0"
        if portable_bits not in ("0", "1"):
            faults.append(f"TAPELINE_PORTABLE_BITS must be 0 or 1, not {portable_bits!r}")
        keep_audit_days = parse_number("TAPELINE_KEEP_AUDIT_DAYS", 0, low=0, high=36500)
        if 0 < keep_audit_days < 1:
            faults.append("TAPELINE_KEEP_AUDIT_DAYS must be 0 or at least 1")
        quotas = {
            item.name: int(
                parse_number(_quota_variable(item.name), float(getattr(Quotas(), item.name)), low=0, high=2**53)
            )
            for item in fields(Quotas)
        }
        embedded = database_url.startswith("sqlite")
        settings = cls(
            home=home,
            host=environ.get("TAPELINE_HOST") or "127.0.0.1",
            port=int(parse_number("TAPELINE_PORT", 8000, low=0, high=65535)),
            workers=int(parse_number("TAPELINE_WORKERS", cores, low=1, high=1024)),
            worker_name=worker_name,
            database_url=database_url,
            broker_url=broker_url,
            artifacts=Path(environ.get("TAPELINE_ARTIFACTS") or home / "artifacts").expanduser().absolute(),
            data=Path(environ.get("TAPELINE_DATA") or home / "data").expanduser().absolute(),
            auth=Auth(auth),
            api_keys=api_keys,
            allowed_hosts=parse_list("TAPELINE_ALLOWED_HOSTS"),
            quotas=Quotas(**quotas),
            lease_s=parse_number("TAPELINE_LEASE_S", 15 if embedded else 30, low=3, high=3600),
            child_limits=ChildLimits(
                jobs=int(parse_number("TAPELINE_CHILD_JOBS", ChildLimits().jobs, low=1, high=10**9)),
                age_s=parse_number("TAPELINE_CHILD_S", ChildLimits().age_s, low=0, high=10**9),
                memory_bytes=int(parse_number("TAPELINE_CHILD_MEMORY", ChildLimits().memory_bytes, low=0, high=2**53)),
            ),
            portable_bits=portable_bits == "1",
            verify_reused=parse_number("TAPELINE_VERIFY_REUSED", 0.01, low=0, high=1),
            proxies=int(parse_number("TAPELINE_PROXIES", 0, low=0, high=10)),
            keep_jobs_days=parse_number("TAPELINE_KEEP_JOBS_DAYS", 0, low=0, high=36500),
            keep_checkpoints_days=parse_number("TAPELINE_KEEP_CHECKPOINTS_DAYS", 0, low=0, high=36500),
            keep_audit_days=keep_audit_days,
        )
        if faults:
            raise SettingsError("; ".join(faults))
        return settings

    def to_env(self) -> dict[str, str]:
        """The variables from which ``from_env`` restores these settings, for child processes."""
        environ = {
            "TAPELINE_HOME": str(self.home),
            "TAPELINE_HOST": self.host,
            "TAPELINE_PORT": str(self.port),
            "TAPELINE_WORKERS": str(self.workers),
            "TAPELINE_WORKER_NAME": self.worker_name,
            "TAPELINE_DATABASE_URL": self.database_url,
            "TAPELINE_ARTIFACTS": str(self.artifacts),
            "TAPELINE_DATA": str(self.data),
            "TAPELINE_AUTH": str(self.auth),
            "TAPELINE_API_KEYS": ",".join(self.api_keys),
            "TAPELINE_ALLOWED_HOSTS": ",".join(self.allowed_hosts),
            "TAPELINE_LEASE_S": str(self.lease_s),
            "TAPELINE_CHILD_JOBS": str(self.child_limits.jobs),
            "TAPELINE_CHILD_S": str(self.child_limits.age_s),
            "TAPELINE_CHILD_MEMORY": str(self.child_limits.memory_bytes),
            "TAPELINE_PORTABLE_BITS": "1" if self.portable_bits else "0",
            "TAPELINE_VERIFY_REUSED": str(self.verify_reused),
            "TAPELINE_PROXIES": str(self.proxies),
            "TAPELINE_KEEP_JOBS_DAYS": str(self.keep_jobs_days),
            "TAPELINE_KEEP_CHECKPOINTS_DAYS": str(self.keep_checkpoints_days),
            "TAPELINE_KEEP_AUDIT_DAYS": str(self.keep_audit_days),
        }
        for item in fields(Quotas):
            environ[_quota_variable(item.name)] = str(getattr(self.quotas, item.name))
        if self.broker_url:
            environ["TAPELINE_BROKER_URL"] = self.broker_url
        return environ


def _quota_variable(name: str) -> str:
    return f"TAPELINE_OWNER_{name.upper()}"


def _read_password(environ: Mapping[str, str], name: str, faults: list[str]) -> str:
    """The content of the file that a variable names; empty if it is not set. Child processes get the complete URL."""
    if not (path := environ.get(name)):
        return ""
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        faults.append(f"{name}: cannot read {path}: {getattr(error, 'strerror', None) or error}")
        return ""
    if not text:
        faults.append(f"{name}: {path} is empty")
    return text


def _with_password(url: str, password: str) -> str:
    parts = urlsplit(url)
    user, _, address = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user.partition(':')[0]}:{quote(password, safe='')}@{address}").geturl()


def _require_certificate(url: str) -> str:
    """Require a valid certificate of the broker, which Celery does not check by default."""
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    if "ssl_cert_reqs" in query:
        return url
    return parts._replace(query=urlencode(query | {"ssl_cert_reqs": ["required"]}, doseq=True)).geturl()


def is_loopback(host: str) -> bool:
    """Whether an address or name is a loopback one."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
