"""deploy/Caddyfile in front of the whole stack: a real Caddy with a certificate of its internal CA."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from service.local import LocalStack
from service.runtime.settings import Settings
from tests.waiting import wait_until

pytestmark = [pytest.mark.nightly, pytest.mark.skipif(shutil.which("caddy") is None, reason="caddy is not installed")]

ROOT = Path(__file__).parents[2]
KEY = "a-key-for-this-test-only"
DOMAIN = "tapeline.example.org"
MAX_UPLOAD_BYTES = 256 * 1024**2


@dataclass
class Proxy:
    http: httpx.Client
    http_port: int
    https_port: int


def set_server_name(request: httpx.Request) -> None:
    """Set the TLS server name, as with real DNS: the certificate must be that of the requested host."""
    request.extensions.setdefault("sni_hostname", DOMAIN)


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    home, caddy_folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("caddy")
    environ = {
        "TAPELINE_HOME": str(home),
        "TAPELINE_PORT": "0",
        "TAPELINE_AUTH": "keys",
        "TAPELINE_API_KEYS": KEY,
        "TAPELINE_ALLOWED_HOSTS": DOMAIN,
        "TAPELINE_PROXIES": "1",
    }
    http_port, https_port = free_port(), free_port()
    root_certificate = caddy_folder / "caddy" / "pki" / "authorities" / "local" / "root.crt"
    with LocalStack(Settings.from_env(environ, cores=1)) as stack, (caddy_folder / "log").open("wb") as log:
        caddy = subprocess.Popen(
            ["caddy", "run", "--adapter", "caddyfile", "--config", str(ROOT / "deploy" / "Caddyfile")],
            env=os.environ
            | {
                "XDG_DATA_HOME": str(caddy_folder),
                "XDG_CONFIG_HOME": str(caddy_folder),
                "TAPELINE_DOMAIN": DOMAIN,
                "CADDY_TLS": "tls internal",
                "TAPELINE_UPSTREAM": stack.url.removeprefix("http://"),
                "CADDY_HTTP_PORT": str(http_port),
                "CADDY_HTTPS_PORT": str(https_port),
            },
            stdout=log,
            stderr=log,
        )

        def responds() -> bool:
            with suppress(httpx.TransportError, OSError), client() as http:
                return http.get("/healthz").status_code == 200
            return False

        def client() -> httpx.Client:
            return httpx.Client(
                base_url=f"https://127.0.0.1:{https_port}",
                verify=ssl.create_default_context(cafile=root_certificate),
                headers={"Authorization": f"Bearer {KEY}", "Host": f"{DOMAIN}:{https_port}"},
                event_hooks={"request": [set_server_name]},
                timeout=60,
                trust_env=False,
            )

        try:
            wait_until(responds, (caddy_folder / "log").read_text()[-2000:], 60)
            with client() as http:
                yield Proxy(http, http_port, https_port)
        finally:
            caddy.terminate()
            caddy.wait(20)


def test_https_requires_a_key_and_sends_hsts(proxy: Proxy) -> None:
    answer = proxy.http.get("/jobs")
    assert answer.status_code == 200
    assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
    rejected = proxy.http.get("/jobs", headers={"Authorization": "Bearer a-key-that-nobody-knows"})
    assert rejected.status_code == 401
    assert "Strict-Transport-Security" in rejected.headers


def test_http_is_redirected_to_https(proxy: Proxy) -> None:
    url = f"http://127.0.0.1:{proxy.http_port}/jobs?limit=1"
    answer = httpx.get(url, headers={"Host": f"{DOMAIN}:{proxy.http_port}"}, trust_env=False)
    assert answer.status_code == 308
    assert answer.headers["Location"] == f"https://{DOMAIN}/jobs?limit=1"


def test_a_tls_handshake_for_another_host_name_fails(proxy: Proxy) -> None:
    unchecked = ssl.create_default_context()
    unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", proxy.https_port), timeout=10) as connection,
        closing(
            unchecked.wrap_socket(connection, server_hostname="other.example.org", do_handshake_on_connect=False)
        ) as tls,
        pytest.raises(ssl.SSLError, match=r"(?i)alert"),
    ):
        tls.do_handshake()


def test_a_session_cookie_is_secure(proxy: Proxy) -> None:
    headers = {"Sec-Fetch-Site": "same-origin"}
    created = proxy.http.post("/keys", json={"name": "browser", "owner": "ann", "scope": "read"})
    assert created.status_code == 201, created.text
    answer = proxy.http.post("/session", json={"key": created.json()["key"]}, headers=headers)
    assert answer.status_code == 201, answer.text
    assert "Secure" in answer.headers["Set-Cookie"]
    proxy.http.cookies.clear()


def test_a_stream_arrives_event_by_event(proxy: Proxy) -> None:
    job = proxy.http.post("/jobs", json={"kind": "gan", "epochs": 6}).raise_for_status().json()
    epochs: list[int] = []
    lags = []
    with proxy.http.stream("GET", f"/jobs/{job['id']}/stream") as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if line.startswith("data:") and (data := json.loads(line[5:])).get("type") == "metrics":
                epochs.append(data["epoch"])
                if data["epoch"] < 6:
                    lags.append(proxy.http.get(f"/jobs/{job['id']}").json()["progress"]["epoch"] - data["epoch"])
    assert epochs == [1, 2, 3, 4, 5, 6]
    assert min(lags) < 2, "the events came together"


def test_an_upload_just_below_the_size_limit_reaches_tapeline(proxy: Proxy) -> None:
    files = {"images": ("images.gz", bytes(MAX_UPLOAD_BYTES - 100_000)), "labels": ("labels.gz", b"none")}
    answer = proxy.http.post("/datasets", data={"name": "mine"}, files=files)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_upload"), answer.text
