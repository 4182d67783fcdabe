"""Where the service is, and which authorities its certificate may be of."""

from __future__ import annotations

import os
from base64 import b64decode
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl


def local_server() -> str:
    """The URL of the service on this machine, as TAPELINE_HOST and TAPELINE_PORT say.

    Raises:
        ValueError: TAPELINE_PORT is not a port number.
    """
    port = os.environ.get("TAPELINE_PORT") or "8000"
    if not port.isdecimal():
        raise ValueError(f"TAPELINE_PORT must be a port number, not {port!r}")
    return url_of(os.environ.get("TAPELINE_HOST") or "127.0.0.1", int(port))


def url_of(host: str, port: int) -> str:
    """The URL, from this machine, of a web process that is bound to this address."""
    client_host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"http://[{client_host}]:{port}" if ":" in client_host else f"http://{client_host}:{port}"


def is_this_machine(host: str) -> bool:
    """Whether a host is the machine of the client, by its name or address."""
    return host in ("localhost", "::1") or host.startswith("127.")


def tls_context() -> ssl.SSLContext:
    """The public authorities, or those of the variables SSL_CERT_FILE and SSL_CERT_DIR, and that of TAPELINE_CA: the
    absolute path of a PEM file, or its content in base64.

    Raises:
        ValueError: one of them cannot be read; the message names the variable.
    """
    import httpx  # lazily: the other functions are used where nothing is sent

    try:
        context = httpx.create_ssl_context()
    except OSError as error:  # ssl.SSLError, too
        raise ValueError(f"SSL_CERT_FILE or SSL_CERT_DIR names no certificates: {error}") from error
    if text := os.environ.get("TAPELINE_CA", "").strip():
        try:
            if os.path.isabs(text):
                context.load_verify_locations(cafile=text)
            else:
                context.load_verify_locations(cadata=b64decode(text, validate=True).decode("ascii"))
        except (OSError, ValueError) as error:
            raise ValueError(
                f"TAPELINE_CA must be the absolute path of a PEM file, or its content in base64: {error}"
            ) from error
    return context
