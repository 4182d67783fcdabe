"""Receivers of webhooks on this machine, which know only ``standardwebhooks``."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from standardwebhooks import Webhook, WebhookVerificationError

Respond = Callable[[BaseHTTPRequestHandler], None]


def answer(status: int, text: str = "", **headers: str) -> Respond:
    """A response; ``_`` in the name of a header is ``-``."""

    def respond(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(text.encode())))
        handler.end_headers()
        handler.wfile.write(text.encode())

    return respond


@dataclass
class Received:
    id: str
    headers: dict[str, str]
    body: bytes
    path: str
    server_name: str | None = None

    def verified(self, secret: str) -> dict[str, Any]:
        """What the message says, checked as the library's documentation shows."""
        message: dict[str, Any] = Webhook(secret).verify(self.body, self.headers)
        return message

    def is_signed_with(self, secret: str) -> bool:
        try:
            return bool(self.verified(secret))
        except WebhookVerificationError:
            return False


@dataclass
class Receiver:
    """A server that records what it receives.

    Attributes:
        respond: the response to each request.
        verify: the secret; what it does not sign is refused with 400, as a good receiver does.
    """

    port: int = 0
    scheme: str = "http"
    respond: Respond = field(default_factory=lambda: answer(204))
    verify: str | None = None
    received: list[Received] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/hook"

    @property
    def ids(self) -> list[str]:
        return [item.id for item in self.received]


@contextmanager
def receive(tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    receiver = Receiver(scheme="https" if tls else "http")
    names: dict[int, str | None] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            message = Received(headers["webhook-id"], headers, body, self.path, names.get(id(self.connection)))
            if receiver.verify is not None and not message.is_signed_with(receiver.verify):
                answer(400, "the signature is not valid")(self)
                return
            receiver.received.append(message)
            receiver.respond(self)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = False  # joined at the end: a later test may count the threads of this process

        def handle_error(self, *_: object) -> None:
            """A client that refuses the certificate, or has seen enough, is no error here."""

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        tls.sni_callback = lambda connection, name, _: names.update({id(connection): name})
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    receiver.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def make_certificate(folder: Path, *names: str) -> tuple[ssl.SSLContext, Path]:
    """The TLS of a server with these names or addresses, and the file of the authority that says so."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "receiver")])
    entries: list[x509.GeneralName] = []
    for name in names:
        try:
            entries.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            entries.append(x509.DNSName(name))
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(entries), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(exist_ok=True)
    public, private = folder / "receiver.pem", folder / "receiver.key"
    public.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    return context, public
