"""deploy/tls.yml: only Caddy is published, and the service behind it requires keys."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.compose.conftest import Service, docker, free_port, require_image

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(480)]


@pytest.fixture(scope="module")
def behind_caddy(image: str) -> Iterator[Service]:
    require_image("caddy:2-alpine")
    configured = Service(
        files=("docker-compose.yml", "deploy/tls.yml"),
        settings={
            "TAPELINE_DOMAIN": "localhost",
            "TAPELINE_WORKERS": "1",
            "CADDY_ADDRESS": "127.0.0.1",
            "CADDY_HTTP_PORT": str(free_port()),
            "CADDY_HTTPS_PORT": str(free_port()),
        },
    )
    try:
        yield configured
    finally:
        configured.down()


def test_https_requires_a_key_and_only_caddy_publishes_ports(behind_caddy: Service, tmp_path: Path) -> None:
    service = behind_caddy
    created = service.compose("run", "--rm", "-T", "web", "tapeline", "keys", "create", "ann", "--json")
    key = json.loads(created)["key"]
    service.compose("up", "--detach", "--wait")
    published = {}
    for container in service.compose("ps", "--quiet").split():
        (details,) = json.loads(docker("inspect", container))
        assert details["HostConfig"]["ReadonlyRootfs"], details["Name"]
        published[details["Name"].split("-")[-2]] = sorted(details["HostConfig"]["PortBindings"])
    port = service.settings["CADDY_HTTPS_PORT"]
    expected = {"caddy": sorted([f"{port}/tcp", f"{port}/udp", "80/tcp"])}
    assert {name: ports for name, ports in published.items() if ports} == expected
    root = tmp_path / "root.crt"
    service.compose("cp", "caddy:/data/caddy/pki/authorities/local/root.crt", str(root))
    url = f"https://localhost:{port}"
    with httpx.Client(base_url=url, verify=ssl.create_default_context(cafile=root), trust_env=False) as http:
        assert http.get("/jobs").status_code == 401
        response = http.get("/jobs", headers={"Authorization": f"Bearer {key}"})
        assert response.status_code == 200
        assert response.headers["Strict-Transport-Security"].startswith("max-age=")
    redirect = httpx.get(f"http://localhost:{service.settings['CADDY_HTTP_PORT']}/ui", trust_env=False)
    assert redirect.headers["Location"] == f"{url}/ui"
