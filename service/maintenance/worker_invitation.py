"""What a worker on another machine needs: the addresses of database, broker and store, as that machine reaches them."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote as quote_word
from textwrap import wrap
from typing import Final
from urllib.parse import parse_qs, parse_qsl, quote, urlencode, urlsplit

from sqlalchemy import URL, make_url

from service.errors import ServiceError
from service.runtime.settings import Settings, is_loopback
from service.storage.object_store import file_credentials

_COMPOSE_HOSTS: Final = frozenset({"postgres", "redis", "seaweedfs"})
"""Names that only the containers of docker-compose.yml know."""
_EQUAL_EVERYWHERE: Final = (
    "TAPELINE_PORTABLE_BITS",
    "TAPELINE_LEASE_S",
    "TAPELINE_VERIFY_REUSED",
    "TAPELINE_OWNER_ARTIFACTS",
)
_CREDENTIALS: Final = {"s3": "AWS_", "gs": "GOOGLE_", "az": "AZURE_"}
"""The beginning of the variables with the credentials of each kind of store."""
_WIDTH: Final = 78
"""Of remarks, in characters."""


class NotInvitable(ServiceError):
    """A worker on another machine could not reach what it needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInvitation:
    """The variables of a worker on another machine, with remarks for the operator."""

    variables: Mapping[str, str]
    remarks: tuple[str, ...]
    share: Path | None
    """The folder of the store on that machine; ``None``: it is a bucket."""

    def env_file(self) -> str:
        """The variables as a file for ``docker run --env-file`` and ``tapeline worker --env-file``."""
        lines = [f"# {line}" for remark in self.remarks for line in wrap(remark, _WIDTH)]
        return "\n".join([*lines, *(f"{name}={value}" for name, value in self.variables.items())]) + "\n"

    def docker_command(self, env_file: str, image: str) -> str:
        """The command that runs the worker in a container, as ``deploy/worker.yml`` does."""
        folder = [f"--volume {quote_word(f'{self.share}:{self.share}')}"] if self.share is not None else []
        lines = [
            "docker run --detach --name tapeline-worker --restart unless-stopped --init",
            "--read-only --cap-drop ALL --security-opt no-new-privileges:true",
            "--stop-timeout 20 --tmpfs /tmp:size=256m",
            "--tmpfs /var/lib/tapeline/run:uid=10001,gid=10001,mode=0755",
            "--volume tapeline-data:/var/lib/tapeline/data",
            "--volume tapeline-cache:/var/lib/tapeline/cache",
            *folder,
            f"--env-file {env_file} {image} python -m workers",
        ]
        return " \\\n  ".join(lines)


def check(settings: Settings, *, host: str | None, share: Path | None) -> None:
    """Check that a worker on another machine could reach database, broker and store; arguments as of ``invite``.

    Raises:
        NotInvitable: the message says all that must change.
    """
    if faults := [*_faults(settings, host, share)]:
        raise NotInvitable("; ".join(faults))


def invite(
    settings: Settings,
    environ: Mapping[str, str],
    *,
    role: str,
    password: str,
    host: str | None = None,
    share: Path | None = None,
    name: str = "",
) -> WorkerInvitation:
    """The invitation of one worker; ``check`` the settings first.

    Args:
        environ: has the credentials of a bucket, if they are variables.
        role, password: of PostgreSQL.
        host: the address of this machine for others; replaces those that only this machine can reach.
        share: where the other machine has the folder of the store.
        name: of the worker.
    """
    database = make_url(settings.database_url).set(username=role, password=password)
    if host is not None and not _is_reachable(_database_host(settings)):
        database = database.set(host=host).difference_update_query(["host"])
    if (named := database.query.get("sslrootcert")) and named == settings.ca:
        database = database.difference_update_query(["sslrootcert"])  # TAPELINE_CA adds it there, too
    variables = {
        "TAPELINE_DATABASE_URL": database.render_as_string(hide_password=False),
        "TAPELINE_BROKER_URL": _with_host(_without_authority(settings), host),
        **_store(settings, host, share),
        **({"TAPELINE_CA": b64encode(Path(settings.ca).read_bytes()).decode()} if settings.ca else {}),
        **({"TAPELINE_WORKER_NAME": name} if name else {}),
        **{key: settings.to_env()[key] for key in _EQUAL_EVERYWHERE if environ.get(key)},
    }
    credentials = _credentials(settings, environ)
    remarks = [*_remarks(settings, database, has_credentials=bool(credentials))]
    return WorkerInvitation(variables=variables | credentials, remarks=tuple(remarks), share=share)


def _faults(settings: Settings, host: str | None, share: Path | None) -> Iterator[str]:
    if host is not None and not _is_reachable(host):
        yield f"--host {host} is an address that only this machine reaches: give one that others reach"
        return
    unreachable = []
    if settings.embedded_database:
        yield (
            "the database is a SQLite file, which only this machine can use: move to PostgreSQL "
            "(tapeline backup, TAPELINE_DATABASE_URL=postgresql+psycopg://..., tapeline restore)"
        )
    elif not _is_reachable(found := _database_host(settings)):
        unreachable.append(f"TAPELINE_DATABASE_URL names {found or 'a socket'}")
    if settings.broker_url is None or settings.broker_url.startswith("redis+socket"):
        yield (
            "the broker is the embedded one, on a socket of this machine: start a Redis or Valkey server and set "
            "TAPELINE_BROKER_URL=rediss://... here, too"
        )
    elif not _is_reachable(found := urlsplit(settings.broker_url).hostname):
        unreachable.append(f"TAPELINE_BROKER_URL names {found}")
    if not settings.store and share is None:
        yield (
            f"the store is the folder {settings.artifacts}: use a bucket (TAPELINE_STORE=s3://...), or mount the "
            "folder on that machine, and give --share FOLDER, its path there"
        )
    elif settings.store and share is not None:
        yield f"the store is {settings.store}, which is no folder: leave --share out"
    elif settings.store_endpoint and not _is_reachable(found := urlsplit(settings.store_endpoint).hostname):
        unreachable.append(f"TAPELINE_STORE_ENDPOINT names {found}")
    if unreachable and host is None:
        yield (
            f"{', '.join(unreachable)}: other machines cannot reach that; change it, or give --host, the address of "
            "this machine for others"
        )


def _is_reachable(host: str | None) -> bool:
    """Whether other machines may reach a host of this name."""
    return bool(host) and not str(host).startswith("/") and not is_loopback(str(host)) and host not in _COMPOSE_HOSTS


def _database_host(settings: Settings) -> str | None:
    url = make_url(settings.database_url)
    host = url.query.get("host", url.host)
    return host if isinstance(host, str) else None


def _with_host(url: str, host: str | None) -> str:
    """The URL with this host, if only this machine reaches its own."""
    parts = urlsplit(url)
    if host is None or _is_reachable(parts.hostname):
        return url
    login, at, _ = parts.netloc.rpartition("@")
    address = f"[{host}]" if ":" in host else host
    return parts._replace(netloc=f"{login}{at}{address}" + (f":{parts.port}" if parts.port else "")).geturl()


def _store(settings: Settings, host: str | None, share: Path | None) -> dict[str, str]:
    if share is not None:
        return {"TAPELINE_STORE": f"file://{quote(str(share))}"}
    found = {"TAPELINE_STORE": settings.store}
    if settings.store_endpoint:
        found["TAPELINE_STORE_ENDPOINT"] = _with_host(settings.store_endpoint, host)
    return found


def _credentials(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables with which this process logs in to the bucket; not those that name files of this machine."""
    prefix = _CREDENTIALS.get(settings.store.partition(":")[0])
    if prefix is None:
        return {}
    found = {name: value for name, value in sorted(environ.items()) if name.startswith(prefix) and value[:1] != "/"}
    if prefix == "AWS_":
        found |= {f"AWS_{name.upper()}": value for name, value in file_credentials().items()}
    return found


def _remarks(settings: Settings, database: URL, *, has_credentials: bool) -> Iterator[str]:
    yield "For a worker of Tapeline on another machine. It has passwords: keep it to yourself (chmod 600)."
    encryption = "(docs/deployment.md#certificates)."
    if database.query.get("sslmode") not in ("verify-full", "verify-ca"):
        yield f"The connection to the database is not verified: add ?sslmode=verify-full {encryption}"
    if (settings.broker_url or "").startswith("redis://"):
        yield f"The connection to the broker is not encrypted: use rediss:// {encryption}"
    if settings.store_endpoint.startswith("http://"):
        yield f"The connection to the store is not encrypted: use https:// {encryption}"
    for path in {database.query.get("sslrootcert"), _authority(settings)} - {None, settings.ca, "system"}:
        yield f"{path} must be there, too, unless TAPELINE_CA names it here."
    if settings.store and not has_credentials:
        prefix = _CREDENTIALS[settings.store.partition(":")[0]]
        yield f"Add the credentials of the store ({prefix}...), unless that machine has a role or a file with them."


def _authority(settings: Settings) -> str | None:
    """The file that the URL of the broker names."""
    return next(iter(parse_qs(urlsplit(settings.broker_url or "").query).get("ssl_ca_certs", [])), None)


def _without_authority(settings: Settings) -> str:
    """The URL of the broker without the file that ``TAPELINE_CA`` adds."""
    if not settings.ca or _authority(settings) != settings.ca:
        return settings.broker_url or ""
    parts = urlsplit(settings.broker_url or "")
    query = [(name, value) for name, value in parse_qsl(parts.query) if name != "ssl_ca_certs"]
    return parts._replace(query=urlencode(query)).geturl()
