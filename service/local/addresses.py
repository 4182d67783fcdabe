"""The URL of a web process on this machine, and a check whether it responds."""

from __future__ import annotations

import http.client


def url_of(host: str, port: int) -> str:
    """The URL, from this machine, of a web process that is bound to this address."""
    client_host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"http://[{client_host}]:{port}" if ":" in client_host else f"http://{client_host}:{port}"


def is_healthy(host: str, port: int, *, timeout_s: float) -> bool:
    """Whether a Tapeline web process responds there."""
    hostname = url_of(host, port).removeprefix("http://").rpartition(":")[0].strip("[]")
    connection = http.client.HTTPConnection(hostname, port, timeout=timeout_s)
    try:
        connection.request("GET", "/healthz", headers={"Host": f"localhost:{port}"})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
