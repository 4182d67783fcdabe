"""A real Caddy with ``deploy/Caddyfile`` redirects to the port of HTTPS."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.object_servers import free_ports
from tests.waiting import wait_until

CADDYFILE = Path(__file__).parents[2] / "deploy" / "Caddyfile"


@pytest.mark.skipif(shutil.which("caddy") is None, reason="there is no caddy command")
def test_the_redirect_keeps_the_port_of_https(tmp_path: Path) -> None:
    http, https = free_ports(2)
    environ = os.environ | {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path), "TAPELINE_DOMAIN": "localhost"}
    environ |= {"CADDY_HTTP_PORT": str(http), "CADDY_HTTPS_PORT": str(https)}
    command = ["caddy", "run", "--adapter", "caddyfile", "--config", str(CADDYFILE)]
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, env=environ, stderr=log) as caddy:
        locations: list[str] = []

        def responds() -> bool:
            with suppress(httpx.TransportError):
                locations.append(httpx.get(f"http://localhost:{http}/ui?a=1", trust_env=False).headers["Location"])
            return bool(locations)

        try:
            wait_until(responds, "Caddy")
        finally:
            caddy.terminate()
    assert locations == [f"https://localhost:{https}/ui?a=1"]
