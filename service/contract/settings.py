"""The environment, read once at the entry point of each process and passed down."""

from __future__ import annotations

import ipaddress
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Final, Self

from service.contract.errors import SettingsError


class Auth(StrEnum):
    """Who may call the API."""

    AUTO = "auto"
    KEYS = "keys"
    LOCAL = "local"


VARIABLES: Final = {
    "TAPELINE_HOME": "state folder of the embedded stack (default: .tapeline in your home folder)",
    "TAPELINE_HOST": "address the web process listens on (default: 127.0.0.1)",
    "TAPELINE_PORT": "port the web process listens on (default: 8000)",
    "TAPELINE_WORKERS": "jobs at a time in one worker process (default: the number of cores)",
    "TAPELINE_DATABASE_URL": "SQLAlchemy URL (default: a SQLite file in TAPELINE_HOME)",
    "TAPELINE_BROKER_URL": "Redis or Valkey URL (default: a broker of its own in TAPELINE_HOME)",
    "TAPELINE_ARTIFACTS": "folder of checkpoints and samples (default: artifacts in TAPELINE_HOME)",
    "TAPELINE_DATA": "folder of datasets, one sub-folder each (default: data in TAPELINE_HOME)",
    "TAPELINE_AUTH": "who may call: auto (default), keys, or local",
    "TAPELINE_API_KEYS": "keys that may call, separated by commas, besides those of `tapeline keys`",
    "TAPELINE_ALLOWED_HOSTS": "host names the service answers to besides local ones, separated by commas",
    "TAPELINE_OWNER_REQUESTS": "requests that one owner's keys may send in a minute (default: 100000)",
    "TAPELINE_OWNER_QUEUED": "jobs of one owner that may wait (default: 200000)",
    "TAPELINE_OWNER_RUNNING": "jobs of one owner that run at once (default: 0, no limit)",
    "TAPELINE_OWNER_UPLOADS": "bytes that one owner may upload in a day (default: 10737418240)",
    "TAPELINE_OWNER_STREAMS": "streams that one owner may have open in one web process (default: 100)",
    "TAPELINE_PROXIES": "proxies in front whose X-Forwarded-For, -Proto and -Host count (default: 0, none)",
    "TAPELINE_LEASE_S": "seconds a worker may be silent before its jobs go to another (default: 30; embedded 15)",
    "TAPELINE_PORTABLE_BITS": "1: pin the common instruction set, for fleets of unlike machines (default: 0)",
    "TAPELINE_KEEP_JOBS_DAYS": "jobs that ended so long ago are deleted, with their files (default: 0, never)",
    "TAPELINE_KEEP_CHECKPOINTS_DAYS": "so long after a job's end all but its best and latest go (default: 0, never)",
}
"""Every setting, in the words of the README's table."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Quotas:
    """How much of the service one owner may have; 0: no limit. Where no keys are asked for, there are no owners."""

    requests: int = 100_000
    queued: int = 200_000
    running: int = 0
    uploads: int = 10 * 1024**3
    streams: int = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """One deployment's settings. ``VARIABLES`` says what each means."""

    home: Path
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int
    database_url: str
    broker_url: str | None
    """``None``: the embedded stack starts a broker of its own."""
    artifacts: Path
    data: Path
    auth: Auth = Auth.AUTO
    api_keys: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    quotas: Quotas = Quotas()
    proxies: int = 0
    lease_s: float
    portable_bits: bool = False
    keep_jobs_days: float = 0.0
    keep_checkpoints_days: float = 0.0

    @property
    def embedded_database(self) -> bool:
        """Whether the database is a SQLite file."""
        return self.database_url.startswith("sqlite")

    @property
    def keys_required(self) -> bool:
        """Whether a caller must show a key."""
        match self.auth:
            case Auth.KEYS:
                return True
            case Auth.LOCAL:
                return False
            case Auth.AUTO:
                return not is_loopback(self.host)

    @property
    def datasets_cache(self) -> Path:
        """Where unpacked datasets lie: beside their sources, or in the home where these may not be touched."""
        try:
            self.data.mkdir(parents=True, exist_ok=True)
            # The bits too: root may write anywhere, but a folder without write bits is meant to stay as it is.
            writable = self.data.stat().st_mode & stat.S_IWUSR and os.access(self.data, os.W_OK)
        except OSError:
            writable = False
        return self.data / ".cache" if writable else self.home / "cache"

    @classmethod
    def from_env(cls, environ: Mapping[str, str], *, cores: int) -> Self:
        """Read the settings.

        Args:
            environ: usually ``os.environ``.
            cores: how many jobs a worker runs at a time where nothing else is said.

        Raises:
            SettingsError: a value cannot be used; the text names every such variable.
        """
        unknown = sorted(name for name in environ if name.startswith("TAPELINE_") and name not in VARIABLES)
        faults = [f"{name} is not a setting of Tapeline" for name in unknown]

        def number(name: str, default: float, *, low: float, high: float) -> float:
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

        def listed(name: str) -> tuple[str, ...]:
            return tuple(part.strip() for part in environ.get(name, "").split(",") if part.strip())

        home = Path(environ.get("TAPELINE_HOME") or Path.home() / ".tapeline").expanduser().absolute()
        if "?" in str(home):
            faults.append("TAPELINE_HOME must not contain a question mark: database URLs give it a meaning of its own")
        database_url = environ.get("TAPELINE_DATABASE_URL") or f"sqlite:///{home / 'tapeline.db'}"
        if not database_url.startswith(("sqlite:///", "postgresql+psycopg://")):
            faults.append("TAPELINE_DATABASE_URL must begin with sqlite:/// or postgresql+psycopg://")
        if (path := database_url.removeprefix("sqlite:///")) != database_url:
            # Processes run in folders of their own: a path must mean the same file in each.
            database_url = f"sqlite:///{Path(path).absolute()}"
        broker_url = environ.get("TAPELINE_BROKER_URL") or None
        if broker_url and not broker_url.startswith(("redis://", "rediss://", "redis+socket://")):
            faults.append("TAPELINE_BROKER_URL must begin with redis://, rediss:// or redis+socket://")
        auth = environ.get("TAPELINE_AUTH") or "auto"
        if auth not in list(Auth):
            faults.append(f"TAPELINE_AUTH must be auto, keys or local, not {auth!r}")
            auth = "auto"
        portable = environ.get("TAPELINE_PORTABLE_BITS") or "0"
        if portable not in ("0", "1"):
            faults.append(f"TAPELINE_PORTABLE_BITS must be 0 or 1, not {portable!r}")
        quotas = {
            item.name: int(number(_quota_variable(item.name), float(getattr(Quotas(), item.name)), low=0, high=2**53))
            for item in fields(Quotas)
        }
        embedded = database_url.startswith("sqlite")
        settings = cls(
            home=home,
            host=environ.get("TAPELINE_HOST") or "127.0.0.1",
            port=int(number("TAPELINE_PORT", 8000, low=0, high=65535)),
            workers=int(number("TAPELINE_WORKERS", cores, low=1, high=1024)),
            database_url=database_url,
            broker_url=broker_url,
            artifacts=Path(environ.get("TAPELINE_ARTIFACTS") or home / "artifacts").expanduser().absolute(),
            data=Path(environ.get("TAPELINE_DATA") or home / "data").expanduser().absolute(),
            auth=Auth(auth),
            api_keys=listed("TAPELINE_API_KEYS"),
            allowed_hosts=listed("TAPELINE_ALLOWED_HOSTS"),
            quotas=Quotas(**quotas),
            lease_s=number("TAPELINE_LEASE_S", 15 if embedded else 30, low=3, high=3600),
            portable_bits=portable == "1",
            proxies=int(number("TAPELINE_PROXIES", 0, low=0, high=10)),
            keep_jobs_days=number("TAPELINE_KEEP_JOBS_DAYS", 0, low=0, high=36500),
            keep_checkpoints_days=number("TAPELINE_KEEP_CHECKPOINTS_DAYS", 0, low=0, high=36500),
        )
        if faults:
            raise SettingsError("; ".join(faults))
        return settings

    def to_env(self) -> dict[str, str]:
        """The variables from which ``from_env`` makes these same settings, for the processes we start."""
        environ = {
            "TAPELINE_HOME": str(self.home),
            "TAPELINE_HOST": self.host,
            "TAPELINE_PORT": str(self.port),
            "TAPELINE_WORKERS": str(self.workers),
            "TAPELINE_DATABASE_URL": self.database_url,
            "TAPELINE_ARTIFACTS": str(self.artifacts),
            "TAPELINE_DATA": str(self.data),
            "TAPELINE_AUTH": str(self.auth),
            "TAPELINE_API_KEYS": ",".join(self.api_keys),
            "TAPELINE_ALLOWED_HOSTS": ",".join(self.allowed_hosts),
            "TAPELINE_LEASE_S": str(self.lease_s),
            "TAPELINE_PORTABLE_BITS": "1" if self.portable_bits else "0",
            "TAPELINE_PROXIES": str(self.proxies),
            "TAPELINE_KEEP_JOBS_DAYS": str(self.keep_jobs_days),
            "TAPELINE_KEEP_CHECKPOINTS_DAYS": str(self.keep_checkpoints_days),
        }
        for item in fields(Quotas):
            environ[_quota_variable(item.name)] = str(getattr(self.quotas, item.name))
        if self.broker_url:
            environ["TAPELINE_BROKER_URL"] = self.broker_url
        return environ


def _quota_variable(name: str) -> str:
    return f"TAPELINE_OWNER_{name.upper()}"


def is_loopback(host: str) -> bool:
    """Whether an address or name means this machine and no other."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
