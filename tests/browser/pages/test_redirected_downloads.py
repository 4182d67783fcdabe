"""Pages of a service that redirects downloads to an object store on another host."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.storage.object_store import ObjectStore
from service.web.app import create_app
from tests.browser.apps import trained
from tests.browser.apps.servers import serve
from tests.browser.conftest import Visit
from tests.object_servers import BUCKET, credentials


@pytest.fixture
def url(moto: str, trained_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name, value in credentials().items():
        monkeypatch.setenv(name, value)
    home, store = tmp_path / "home", f"s3://{BUCKET}/browser/{tmp_path.name}"
    shutil.copytree(trained_home, home)
    files = {path.relative_to(home / "artifacts"): path for path in (home / "artifacts").rglob("*") if path.is_file()}
    contents = {name.as_posix(): path.read_bytes() for name, path in files.items()}
    ObjectStore(store, endpoint=moto, lease_s=15).put_all(contents)
    environ = {"TAPELINE_STORE": store, "TAPELINE_STORE_ENDPOINT": moto, "TAPELINE_STORE_REDIRECT": "1"}
    with serve(create_app(trained.local_settings(home, TAPELINE_ARTIFACTS="", **environ))) as url:
        yield url


def test_files_are_downloaded_from_the_store_and_images_are_shown(
    open_window: Callable[..., Visit], url: str, jobs: dict[str, Any], moto: str
) -> None:
    visit = open_window(url, own=True)
    visit.error_log.expected = [f"a request left its origin: {moto}"]
    job_id = jobs["painter"]["id"]
    assert httpx.get(f"{url}/jobs/{job_id}/checkpoints/latest").headers["Location"].startswith(moto)
    page = visit.open(f"/ui/jobs/{job_id}")
    buttons = {
        page.locator("#export").get_by_role("button", name="PyTorch"): "-torch.zip",
        page.locator("#files a.download").first: ".safetensors",
    }
    for button, ending in buttons.items():
        with page.expect_download() as downloaded:
            button.click()
        assert downloaded.value.url.startswith(moto)
        assert downloaded.value.suggested_filename.startswith(f"{job_id}-epoch-")
        assert downloaded.value.suggested_filename.endswith(ending)
        assert downloaded.value.path().stat().st_size > 10_000
    page.wait_for_function("[...document.images].some(image => image.src.includes('/samples/') && image.naturalWidth)")
