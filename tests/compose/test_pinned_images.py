"""`make pin-images` with a local registry: pinned images stay the same when their tags move."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.compose.conftest import ROOT, Service, docker, free_port, require_image
from tests.waiting import wait_until

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(480)]

PIN_IMAGES = Path(".ci") / "pin_images.py"
TAGS: dict[str, str] = runpy.run_path(str(ROOT / PIN_IMAGES))["images"](ROOT)


def responds(url: str) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(url, trust_env=False).status_code == 200
    return False


@pytest.fixture
def registry(docker_engine: None, tmp_path: Path) -> Iterator[str]:
    """The address of an empty registry on localhost, to which Docker connects without TLS.

    Skips the test if no registry is installed: it is not a Python package, and pulling its image would need
    another registry.
    """
    program = shutil.which("docker-registry") or shutil.which("registry")
    if program is None:
        pytest.skip("no registry is installed (Debian's package docker-registry)")
    address = f"localhost:{free_port()}"
    config = {
        "version": 0.1,
        "http": {"addr": address},
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "r")}},
    }
    (tmp_path / "registry.yml").write_text(json.dumps(config))
    with (tmp_path / "registry.log").open("wb") as log:
        process = subprocess.Popen([program, "serve", str(tmp_path / "registry.yml")], stdout=log, stderr=log)
    try:
        wait_until(lambda: responds(f"http://{address}/v2/"), "the registry")
        yield address
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def tree(registry: str, tmp_path: Path) -> Path:
    """A copy of this tree whose base images come from the registry."""
    tracked_files = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    folder = tmp_path / "tree"
    for name in filter(None, tracked_files.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for name in ("Dockerfile", "docker-compose.yml", "deploy/tls.yml"):
        text = (folder / name).read_text()
        for tag in TAGS.values():
            text = text.replace(tag, f"{registry}/{tag}")
        (folder / name).write_text(text)
    return folder


def push(image: str, tag: str) -> None:
    docker("tag", image, tag)
    docker("push", "--quiet", tag)


def test_pinned_base_images_are_used_after_their_tags_have_moved(registry: str, tree: Path) -> None:
    not_started = ("CADDY_IMAGE", "SEAWEEDFS_IMAGE")
    images = {variable: require_image(tag) for variable, tag in TAGS.items() if variable not in not_started}
    images |= dict.fromkeys(not_started, TAGS["REDIS_IMAGE"])
    for variable, image in images.items():
        push(image, f"{registry}/{TAGS[variable]}")
    (tree / ".env").write_text("# ours\nWEB_MEMORY=1g\n")
    pinned = subprocess.run([sys.executable, PIN_IMAGES], cwd=tree, capture_output=True, text=True, check=True).stdout
    lines = (tree / ".env").read_text().splitlines()
    assert lines[:2] == ["# ours", "WEB_MEMORY=1g"]
    assert lines[2:] == pinned.splitlines()
    pins = dict(re.findall(r"(?m)^(\w+)=(\S+@sha256:[0-9a-f]{64})$", pinned))
    assert {variable: image.partition("@")[0] for variable, image in pins.items()} == {
        variable: f"{registry}/{tag}" for variable, tag in TAGS.items()
    }

    for variable, tag in TAGS.items():  # move each tag to another image, with which nothing would work
        push(TAGS["POSTGRES_IMAGE" if variable == "REDIS_IMAGE" else "REDIS_IMAGE"], f"{registry}/{tag}")
        docker("rmi", f"{registry}/{tag}")
    service = Service(folder=tree, settings={"TAPELINE_IMAGE": "tapeline:pinned", "TAPELINE_WORKERS": "1"})
    try:
        service.compose("up", "--build", "--detach", "--wait", timeout_s=400)
        assert service.http.get("/readyz").status_code == 200
        running = {name: json.loads(docker("inspect", *service.containers(name)))[0] for name in ("redis", "postgres")}
        assert {name: details["Config"]["Image"] for name, details in running.items()} == {
            "redis": pins["REDIS_IMAGE"],
            "postgres": pins["POSTGRES_IMAGE"],
        }
    finally:
        service.down()
        for image in (*pins.values(), "tapeline:pinned"):
            with suppress(AssertionError):  # two were not pulled
                docker("rmi", image)
