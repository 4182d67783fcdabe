"""The ends of certificates, read from TLS servers."""

from __future__ import annotations

import contextlib
import datetime as dt
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from service.web.core.server_certificates import ServerCertificates, TlsServer, servers

END = dt.datetime(2020, 5, 17, 12, tzinfo=dt.UTC)
"""In the past: an expired certificate is what must be seen."""


@pytest.fixture(scope="module")
def server_context(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(END - dt.timedelta(days=1)).not_valid_after(END)
    file: Path = tmp_path_factory.mktemp("tls") / "server.pem"
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(secret + builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


@contextmanager
def serve(context: ssl.SSLContext, answer: bytes | None = None) -> Iterator[int]:
    """A TLS server, or with ``answer`` a PostgreSQL server that answers a request for TLS so."""

    def run(listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with closing(connection), contextlib.suppress(OSError):
                if answer is not None:
                    assert connection.recv(8) == bytes.fromhex("0000000804d2162f")
                    connection.sendall(answer)
                if answer in (None, b"S"):
                    context.wrap_socket(connection, server_side=True).close()

    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        threading.Thread(target=run, args=(listener,), daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def test_the_end_of_an_expired_certificate_is_read_from_broker_and_database(server_context: ssl.SSLContext) -> None:
    with serve(server_context) as broker, serve(server_context, b"S") as database:
        found = servers(f"postgresql+psycopg://u:p@127.0.0.1:{database}/x", f"rediss://:p@127.0.0.1:{broker}/0")
        certificates = ServerCertificates(found)
        assert certificates.ends() == {"database": END.timestamp(), "broker": END.timestamp()}
    assert certificates.ends()["broker"] == END.timestamp()  # cached


def test_an_end_stays_known_while_the_server_does_not_respond(
    server_context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(server_context) as port:
        certificates = ServerCertificates([TlsServer("broker", "127.0.0.1", port)])
        certificates.ends()
    monkeypatch.setattr(certificates, "_check_at", 0.0)
    assert certificates.ends() == {"broker": END.timestamp()}


@pytest.mark.parametrize("answer", [b"", b"E"])
def test_a_database_that_does_not_say_whether_it_uses_tls_keeps_its_end(
    server_context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    with serve(server_context, answer) as port:
        certificates = ServerCertificates([TlsServer("database", "127.0.0.1", port, is_postgresql=True)])
        monkeypatch.setattr(certificates, "_ends", {"database": END.timestamp()})
        assert certificates.ends() == {"database": END.timestamp()}


def test_a_host_name_that_cannot_be_encoded_is_no_error_of_the_scrape() -> None:
    assert ServerCertificates([TlsServer("broker", f"{'a' * 64}.example", 1)]).ends() == {}


def test_a_database_without_tls_has_no_certificate(server_context: ssl.SSLContext) -> None:
    with serve(server_context, b"N") as port:
        assert ServerCertificates(servers(f"postgresql+psycopg://127.0.0.1:{port}/x", None)).ends() == {}


@pytest.mark.parametrize(
    ("database", "broker"),
    [
        ("sqlite:////tmp/x.db", "redis://127.0.0.1/0"),
        ("postgresql+psycopg:///x?host=/tmp", None),
        ("postgresql+psycopg://db/x?sslmode=disable", "redis+socket:///run/x.sock"),
    ],
)
def test_servers_that_use_no_tls_are_not_asked(database: str, broker: str | None) -> None:
    assert servers(database, broker) == []
