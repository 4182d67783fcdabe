"""When the TLS certificates of database and broker end, as their servers present them."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import structlog
from cryptography import x509
from sqlalchemy import make_url

_MAX_AGE_S: Final = 600.0
"""How long an answer is cached."""
_RETRY_S: Final = 60.0
_TIMEOUT_S: Final = 1.0
_POSTGRESQL_TLS_REQUEST: Final = struct.pack("!ii", 8, 80877103)
"""SSLRequest: https://www.postgresql.org/docs/current/protocol-message-formats.html"""

_log = structlog.get_logger("tapeline.web")


@dataclass(frozen=True, slots=True)
class TlsServer:
    """A server that may present a certificate."""

    name: str
    host: str
    port: int
    is_postgresql: bool = False


def servers(database_url: str, broker_url: str | None) -> list[TlsServer]:
    """The servers of these URLs that may use TLS."""
    found = []
    database = make_url(database_url)
    is_remote = database.get_backend_name() == "postgresql" and database.host and not database.host.startswith("/")
    if is_remote and database.query.get("sslmode") != "disable":
        found.append(TlsServer("database", str(database.host), database.port or 5432, is_postgresql=True))
    broker = urlsplit(broker_url or "")
    if broker.scheme == "rediss" and broker.hostname:
        found.append(TlsServer("broker", broker.hostname, broker.port or 6379))
    return found


class ServerCertificates:
    """The ends of the certificates, cached. A server that does not respond, or uses no TLS, is left out; once known, an
    end is kept while the server does not respond."""

    def __init__(self, tls_servers: list[TlsServer]) -> None:
        self._servers = tls_servers
        self._ends: dict[str, float] = {}
        self._check_at = 0.0
        self._lock = threading.Lock()

    def ends(self) -> dict[str, float]:
        """By name of the server, when its certificate ends, in seconds since 1970."""
        with self._lock:
            if self._servers and time.monotonic() >= self._check_at:
                are_known = [self._check(server) for server in self._servers]
                self._check_at = time.monotonic() + (_MAX_AGE_S if all(are_known) else _RETRY_S)
            return dict(self._ends)

    def _check(self, server: TlsServer) -> bool:
        try:
            end = _end_of(server)
        except (OSError, ValueError) as error:  # ValueError: a host name or a certificate that cannot be read
            _log.warning("the certificate of a server cannot be read", server=server.name, error=str(error))
            return False
        if end is None:
            self._ends.pop(server.name, None)
        else:
            self._ends[server.name] = end
        return True


def _end_of(server: TlsServer) -> float | None:
    """When the certificate ends; ``None``: the server uses no TLS."""
    # Not verified: an expired certificate has an end, too, and nothing is sent or believed.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection((server.host, server.port), timeout=_TIMEOUT_S) as connection:
        if server.is_postgresql:
            connection.sendall(_POSTGRESQL_TLS_REQUEST)
            answer = connection.recv(1)
            if answer == b"N":
                return None
            if answer != b"S":
                raise ConnectionError("the server does not say whether it uses TLS")
        with context.wrap_socket(connection, server_hostname=server.host) as secured:
            certificate = secured.getpeercert(binary_form=True)
    return x509.load_der_x509_certificate(certificate).not_valid_after_utc.timestamp() if certificate else None
