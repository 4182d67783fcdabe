"""The environment, read once at the entry point of each process and passed down."""

from __future__ import annotations

import ipaddress
import os
import re
import stat
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Self, TypeVar
from urllib.parse import unquote, urlsplit

from service.declarations import Entries, extended, installed
from service.errors import SettingsError
from service.owner_limits import Quotas
from service.runtime import server_urls, tracing
from service.runtime.setting import Setting, declared, setting, text_of

T = TypeVar("T")


class Auth(StrEnum):
    """Whether the API requires keys."""

    AUTO = "auto"
    KEYS = "keys"
    LOCAL = "local"


MIN_KEY_LENGTH: Final = 16
"""Of keys in ``TAPELINE_API_KEYS``, in characters: shorter ones can be guessed."""


_STORE: Final = re.compile(r"file:///[^?#]*|(s3|gs|az)://[A-Za-z0-9][A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*/?")
_PUBLIC_URL: Final = re.compile(r"https?://[A-Za-z0-9.\-\[\]:]+(/[A-Za-z0-9._~/-]*)?")
_ENDPOINT: Final = re.compile(r"https?://[A-Za-z0-9.\-\[\]:]+/?")


@dataclass(frozen=True, kw_only=True, slots=True)
class ChildLimits:
    """Limits up to which a training process gets another job after one that ended well."""

    jobs: int = setting(
        "jobs that a training process may train in turn (default: {default}; 1: a process for each job)",
        100,
        low=1,
    )
    age_s: float = setting(
        "age in seconds after which a training process gets no other job (default: {default})",
        600.0,
        suffix="S",
    )
    memory_bytes: int = setting(
        "resident bytes after a job above which a training process gets no other job (default: {default})",
        1024**3,
        suffix="MEMORY",
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The settings of a deployment, each declared here or in ``Quotas`` and ``ChildLimits``. `make settings` writes the
    declarations into docs/configuration.md, docker-compose.yml, .env.example and the schema of the Helm chart."""

    home: Path = setting(
        "state folder of the embedded stack (default: .tapeline in the home folder)",
        otherwise=lambda found: Path.home() / ".tapeline",
        valid=lambda path: "?" not in str(path),
        rule="not contain a question mark: it has a special meaning in database URLs",
    )
    host: str = setting("address that the web process binds to (default: {default})", "127.0.0.1")
    port: int = setting("port of the web process (default: {default})", 8000, high=65535)
    workers: int = setting(
        "concurrent jobs per worker process (default: the processors that it may use)",
        otherwise=lambda found: found["cores"],
        low=1,
        high=1024,
    )
    worker_name: str = setting(
        "name of a worker in lists and metrics: 40 of A-Z a-z 0-9 . _ - (default: the host name)",
        "",
        valid=re.compile(r"[A-Za-z0-9._-]{0,40}").fullmatch,
        rule="have up to 40 letters, digits and ._-",
    )
    database_url: str = setting(
        "SQLAlchemy URL, PostgreSQL or SQLite (default: a SQLite file in TAPELINE_HOME)",
        otherwise=lambda found: f"sqlite:///{found['home'] / 'tapeline.db'}",
        valid=lambda url: url.startswith(("sqlite:///", "postgresql+psycopg://")),
        rule="begin with sqlite:/// or postgresql+psycopg://",
    )
    database_password_file: str = setting(
        "file with the password for TAPELINE_DATABASE_URL (default: the URL's own)", ""
    )
    """Empty once ``from_env`` has read it; so is that of the broker."""
    broker_url: str | None = setting(
        "Redis or Valkey URL (default: an embedded broker in TAPELINE_HOME)",
        otherwise=lambda found: None,
        valid=lambda url: url is None or url.startswith(("redis://", "rediss://", "redis+socket://")),
        rule="begin with redis://, rediss:// or redis+socket://",
    )
    """``None``: the embedded stack starts its own broker."""
    broker_password_file: str = setting("file with the password for TAPELINE_BROKER_URL (default: the URL's own)", "")
    store: str = setting(
        "store for checkpoints, samples, exports and uploaded datasets: file:///folder, s3://bucket/prefix, "
        "gs://bucket/prefix or az://container/prefix (default: the folder TAPELINE_ARTIFACTS)",
        "",
        valid=lambda url: not url or _STORE.fullmatch(url),
        rule="be file:///folder, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix",
    )
    """Empty if it is the folder ``artifacts``."""
    store_endpoint: str = setting(
        "URL of a server that speaks S3, for TAPELINE_STORE=s3://…; http:// sends everything in the clear "
        "(default: that of the cloud)",
        "",
        valid=lambda url: not url or _ENDPOINT.fullmatch(url),
        rule="be http://host:port or https://host",
    )
    store_redirect: bool = setting(
        "1: redirect downloads of checkpoints, exports and files to URLs of the object store, signed for 15 minutes "
        "(default: {default})",
        False,
    )
    store_timeout_s: float = setting(
        "seconds without a worker that can use the object store, after which the jobs that it interrupted fail "
        "(default: {default})",
        600.0,
        low=1,
    )
    ca: str = setting(
        "certificate authority of database, broker, store and receivers of webhooks: a PEM file, or its content in "
        "base64 (default: those of the system)",
        "",
    )
    """The path of the file, once ``from_env`` has read it."""
    artifacts: Path = setting(
        "folder for files that are being received and, without TAPELINE_STORE, all that it would have (default: "
        "artifacts in TAPELINE_HOME)",
        otherwise=lambda found: found["home"] / "artifacts",
    )
    data: Path = setting(
        "folder of datasets, one subfolder each (default: data in TAPELINE_HOME)",
        otherwise=lambda found: found["home"] / "data",
    )
    cache: Path | None = setting(
        "folder on each machine for the arrays of datasets (default: .cache in TAPELINE_DATA, or cache in "
        "TAPELINE_HOME if that is read-only)",
        None,
    )
    cache_bytes: int = setting(
        "bytes of this folder above which the arrays that were not used for the longest time are removed (default: "
        "{default}; 0: no limit)",
        20 * 1024**3,
    )
    auth: Auth = setting(
        "API keys: auto (default; required unless bound to loopback), keys (required), local (off)", Auth.AUTO
    )
    api_keys: tuple[str, ...] = setting(
        f"accepted keys besides those of `tapeline keys`, {MIN_KEY_LENGTH} characters or more, comma-separated",
        (),
        valid=lambda keys: all(len(key) >= MIN_KEY_LENGTH for key in keys),
        rule=f"have at least {MIN_KEY_LENGTH} characters in each key",
    )
    allowed_hosts: tuple[str, ...] = setting("accepted host names besides local ones, comma-separated", ())
    url: str = setting(
        "address at which people reach the service, for links in messages: https://tapeline.example.org (default: "
        "messages have paths)",
        "",
        valid=lambda url: not url or _PUBLIC_URL.fullmatch(url),
        rule="be http://host or https://host, with a port or path if needed",
    )
    quotas: Quotas = field(default=Quotas(), metadata={"prefix": "OWNER_"})
    proxies: int = setting(
        "number of trusted proxies that set X-Forwarded-For, -Proto and -Host (default: {default})", 0, high=10
    )
    lease_s: float = setting(
        "lease duration: seconds until a lost worker's jobs are requeued (default: 30; embedded: 15)",
        otherwise=lambda found: 15.0 if found["database_url"].startswith("sqlite") else 30.0,
        low=3,
        high=3600,
    )
    child_limits: ChildLimits = field(default=ChildLimits(), metadata={"prefix": "CHILD_"})
    portable_bits: bool = setting(
        "1: use only the common instruction set, for workers with different CPUs (default: {default})", False
    )
    signing_key: Path | None = setting(
        "PEM file of the P-256 key that signs certificates, made when it is first needed; with "
        "TAPELINE_SIGNING_COMMAND, of its public key (default: keys/signing-key.pem in TAPELINE_HOME)",
        None,
    )
    signing_command: str = setting(
        "command that signs certificates in place of the key: it gets the bytes on standard input, and writes an "
        "ECDSA signature in DER (default: none)",
        "",
    )
    otel_parent: str = setting(
        "traces of attempts, see docs/operations.md: link (default; a trace each, linked to that of the request), or "
        "child (part of the trace of the request)",
        "link",
        valid=("link", "child").__contains__,
        rule="be link or child",
    )
    verify_reused: float = setting(
        "fraction of reused results that are checked by training an epoch again (default: {default})", 0.01, high=1
    )
    keep_jobs_days: float = setting(
        "job retention: days from the end of a job to its deletion (default: {default}, never)", 0.0, high=36500
    )
    keep_checkpoints_days: float = setting(
        "checkpoint retention: days until only the best and the latest of an ended job are kept "
        "(default: {default}, never)",
        0.0,
        high=36500,
    )
    keep_audit_days: float = setting(
        "audit log retention: days until entries are removed, 1 or more (default: {default}, never)",
        0.0,
        high=36500,
        valid=lambda days: days == 0 or days >= 1,
        rule="be 0 or at least 1",
    )
    scrub_bytes: int = setting(
        "bytes of stored files that the scheduler reads again per hour, to find damaged ones (default: {default}; 0: "
        "none)",
        4 * 1024**3,
    )

    features: tuple[Any, ...] = ()
    """What features declare, an object each; see ``of``."""

    def of(self, kind: type[T]) -> T:
        """The settings of a feature."""
        return next((item for item in self.features if isinstance(item, kind)), None) or kind()

    @property
    def embedded_database(self) -> bool:
        """Whether the database is a SQLite file."""
        return self.database_url.startswith("sqlite")

    @property
    def keys_required(self) -> bool:
        """Whether requests need an API key."""
        return self.auth == Auth.KEYS or (self.auth != Auth.LOCAL and not is_loopback(self.host))

    @property
    def datasets_cache(self) -> Path:
        """Folder of the arrays of datasets: beside their sources, or in the home folder if that is read-only."""
        if self.cache is not None:
            return self.cache
        try:
            self.data.mkdir(parents=True, exist_ok=True)
            # Check the mode, too: root can write to a folder without write permission, but should not.
            writable = self.data.stat().st_mode & stat.S_IWUSR and os.access(self.data, os.W_OK)
        except OSError:
            writable = False
        return self.data / ".cache" if writable else self.home / "cache"

    @property
    def signing_key_file(self) -> Path:
        """The file of the key that signs certificates."""
        return self.signing_key or self.home / "keys" / "signing-key.pem"

    @classmethod
    def from_env(cls, environ: Mapping[str, str], *, cores: int) -> Self:
        """Read the settings.

        Args:
            environ: usually ``os.environ``.
            cores: number of CPU cores, the default number of concurrent jobs per worker.

        Raises:
            SettingsError: a value is not valid; the message names every such variable.
        """
        unknown = sorted(name for name in environ if name.startswith("TAPELINE_") and name not in SETTINGS)
        faults = [f"{name} is not a setting of Tapeline" for name in unknown]
        groups: defaultdict[str, dict[str, Any]] = defaultdict(dict, {"": {"cores": cores}})
        found = groups[""]
        for variable, item in SETTINGS.items():
            value = default = item.default(found)
            try:
                if text := environ.get(variable, "").strip():
                    value = item.parse(text)
            except ValueError as error:
                faults.append(f"{variable} must {error}")
            if not item.valid(value):
                faults.append(f"{variable} must {item.rule}")
                value = default
            groups[item.group][item.name] = value
        if (path := found["database_url"].removeprefix("sqlite:///")) != found["database_url"]:
            # Processes have different working folders: a path must mean the same file in all of them.
            found["database_url"] = f"sqlite:///{Path(path).absolute()}"
        faults += [*_read_store(found, environ), *tracing.faults(environ)]
        for name in ("database", "broker"):
            url, variable = found[f"{name}_url"], f"TAPELINE_{name.upper()}_PASSWORD_FILE"
            password_file = found.pop(f"{name}_password_file")
            if password_file and url and (password := server_urls.read_password(Path(password_file), variable, faults)):
                found[f"{name}_url"] = url if url.startswith("sqlite") else server_urls.with_password(url, password)
        server_urls.verify_servers(found, faults)
        if faults:
            raise SettingsError("; ".join(faults))
        del found["cores"]
        found |= {"quotas": Quotas(**groups["quotas"]), "child_limits": ChildLimits(**groups["child_limits"])}
        return cls(**found, features=tuple(kind(**groups[name]) for name, kind in _OF_FEATURES.items()))

    def value(self, setting: Setting) -> Any:
        """The value of one setting."""
        if (kind := _OF_FEATURES.get(setting.group)) is not None:
            return getattr(self.of(kind), setting.name)
        return getattr(getattr(self, setting.group) if setting.group else self, setting.name)

    def to_env(self) -> dict[str, str]:
        """The variables from which ``from_env`` restores these settings, for child processes."""
        found = {variable: text_of(self.value(setting)) for variable, setting in SETTINGS.items()}
        if self.store:
            del found["TAPELINE_ARTIFACTS"]  # the default
        return found


def _placed() -> Iterator[Entries[Setting]]:
    """The settings of features, each with the one that it follows."""
    for name, kind in _OF_FEATURES.items():
        previous = ""
        for variable, item in declared(kind, group=name):
            yield Entries(item.after or previous, {variable: item})
            previous = variable


_OF_FEATURES: Final = {item.name: item.settings for item in installed() if item.settings is not None}
SETTINGS: Final = extended(dict(declared(Settings)), _placed())
"""Every setting by its variable, in the order of docs/configuration.md."""


def _read_store(found: dict[str, Any], environ: Mapping[str, str]) -> Iterator[str]:
    """Make a folder of the store the one for artifacts; yields what is wrong."""
    store, chosen = found["store"], environ.get("TAPELINE_ARTIFACTS", "").strip()
    folder = Path(unquote(urlsplit(store).path)) if store.startswith("file:") else None
    if store and chosen and found["artifacts"] != folder:
        yield f"TAPELINE_STORE is {store} and TAPELINE_ARTIFACTS is {chosen}: remove the one that you do not mean"
    if found["store_endpoint"] and not store.startswith("s3:"):
        yield "TAPELINE_STORE_ENDPOINT is only for TAPELINE_STORE=s3://bucket/prefix"
    if found["store_redirect"] and (not store or folder is not None):
        yield "TAPELINE_STORE_REDIRECT=1 needs an object store: set TAPELINE_STORE=s3://bucket/prefix, or remove it"
    if folder is not None:
        found |= {"store": "", "artifacts": folder}
    elif store and find_spec("obstore") is None:
        yield f"TAPELINE_STORE={store} needs obstore: pip install obstore"


def is_loopback(host: str) -> bool:
    """Whether an address or name is a loopback one."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
