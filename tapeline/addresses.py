"""Where the service is."""

from __future__ import annotations

import os


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
