"""Where a web process of this machine is, and whether it answers."""

from __future__ import annotations

import http.client


def url_of(host: str, port: int) -> str:
    """Where a web process that listens on this address is found from this machine."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"


def is_healthy(host: str, port: int, *, timeout_s: float) -> bool:
    """Whether a web process of ours answers there."""
    name = url_of(host, port).removeprefix("http://").rpartition(":")[0].strip("[]")
    connection = http.client.HTTPConnection(name, port, timeout=timeout_s)
    try:
        connection.request("GET", "/healthz", headers={"Host": f"localhost:{port}"})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
