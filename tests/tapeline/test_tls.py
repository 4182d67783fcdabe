"""The client and a service behind TLS with an authority of its own, such as Caddy on localhost: a real server."""

from __future__ import annotations

import json
import ssl
import threading
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from service.cli import main
from tapeline import Client, ServerUnreachable
from tapeline.connection import Connection
from tapeline.errors import ClientError, ServerUntrusted
from tapeline.streams import events


class Service(BaseHTTPRequestHandler):
    """Answers each list with nothing, and each stream with its end."""

    def do_GET(self) -> None:
        is_stream = self.path.endswith("/stream")
        body = (
            b'id: 1\nevent: end\ndata: {"status": "succeeded"}\n\n'
            if is_stream
            else b'{"data": [], "next_cursor": null}'
        )
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream" if is_stream else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Print nothing."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The certificate of an authority made for these tests, and the URL of a server with one from it for localhost."""
    folder = tmp_path_factory.mktemp("tls")
    now, root_key, key = (
        datetime.now(UTC),
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP256R1()),
    )
    root_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "An authority of this test")])

    def certificate(name: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(root_name).public_key(public)
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(days=1))
        return builder.not_valid_after(now + timedelta(days=1))

    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    root = certificate(root_name, root_key.public_key()).add_extension(x509.BasicConstraints(True, None), critical=True)
    root = root.add_extension(usage, critical=True)
    root = root.add_extension(x509.SubjectKeyIdentifier.from_public_key(root_key.public_key()), critical=False)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.9"))])
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key())
    own = certificate(x509.Name([]), key.public_key()).add_extension(names, critical=True)
    own = own.add_extension(issuer, critical=False)
    pem = serialization.Encoding.PEM
    (folder / "root.crt").write_bytes(root.sign(root_key, hashes.SHA256()).public_bytes(pem))
    (folder / "server.crt").write_bytes(own.sign(root_key, hashes.SHA256()).public_bytes(pem))
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "server.key").write_bytes(private)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder / "root.crt", f"https://localhost:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def _no_authority(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TAPELINE_CA", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("way", ["TAPELINE_CA", "SSL_CERT_FILE", "content"])
def test_client_stream_and_command_trust_the_authority_that_is_named(
    authority: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    root, url = authority
    content = b64encode(root.read_bytes()).decode()
    monkeypatch.setenv("TAPELINE_CA" if way == "content" else way, content if way == "content" else str(root))
    with Client(url) as client:
        assert list(client.jobs()) == []
    connection = Connection(url)
    assert [event.type for event in events(connection, "/jobs/job_1/stream")] == ["end"]
    connection.close()
    listed = CliRunner().invoke(main, ["jobs", "--server", url, "--json"])
    assert (listed.exit_code, json.loads(listed.stdout)) == (0, [])


def test_an_authority_that_is_not_trusted_is_said_at_once_with_the_remedy(authority: tuple[Path, str]) -> None:
    _, url = authority
    with Client(url) as client, pytest.raises(ServerUntrusted) as caught:
        list(client.jobs())
    assert isinstance(caught.value, ServerUnreachable), "as before, for those who catch it"
    connection = Connection(url)
    with pytest.raises(ServerUntrusted):  # no reconnection for a minute
        list(events(connection, "/jobs/job_1/stream"))
    connection.close()
    refused = CliRunner().invoke(main, ["jobs", "--server", url])
    assert refused.exit_code == 1
    for text in ("TAPELINE_CA", "docker compose cp caddy:/data/caddy/pki/authorities/local/root.crt", "not trusted"):
        assert text in refused.stderr
        assert text in str(caught.value)
    assert "tapeline up" not in refused.stderr


def test_other_faults_of_tls_have_their_own_remedies(
    authority: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, url = authority
    monkeypatch.setenv("TAPELINE_CA", str(root))
    with (
        Client(url.replace("localhost", "127.0.0.1")) as client,
        pytest.raises(ServerUntrusted, match="is not for this"),
    ):
        client.queue()
    plain = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    threading.Thread(target=plain.serve_forever, daemon=True).start()
    with (
        Client(f"https://127.0.0.1:{plain.server_port}") as client,
        pytest.raises(ServerUntrusted, match=r"use http://127\.0\.0\.1"),
    ):
        client.queue()
    plain.shutdown()
    plain.server_close()
    with Client(f"https://127.0.0.1:{plain.server_port}") as client, pytest.raises(ServerUnreachable) as closed:
        client.queue()
    assert "tapeline up" not in str(closed.value), "it would not listen with TLS"
    with (
        Client(f"http://127.0.0.1:{plain.server_port}") as client,
        pytest.raises(ServerUnreachable, match="tapeline up"),
    ):
        client.queue()


@pytest.mark.parametrize("name", ["TAPELINE_CA", "SSL_CERT_FILE"])
@pytest.mark.parametrize("value", ["/nowhere/root.crt", "empty", "neither a path nor base64"])
def test_an_authority_that_cannot_be_read_is_named(
    authority: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str
) -> None:
    (tmp_path / "empty").touch()
    monkeypatch.setenv(name, str(tmp_path / "empty") if value == "empty" else value)
    with pytest.raises(ClientError, match=name):
        Client(authority[1])
    Client("http://127.0.0.1:1").close()  # it needs none
