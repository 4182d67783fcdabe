"""The documentation as a site (``make docs``), whose links MkDocs has checked."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.browser.windows import Visit

ROOT = Path(__file__).parents[2]
SITE = ROOT / "dist" / "docs"


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Print nothing for a request."""


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def site(serve_bare: object) -> Iterator[str]:
    building = subprocess.run(["make", "docs"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert building.returncode == 0, building.stdout + building.stderr
    with serve(SITE) as url:
        yield url


def test_pages_load_everything_from_their_own_origin_and_fit_a_phone(
    site: str, open_window: Callable[..., Visit]
) -> None:
    visit = open_window(site, width=390)  # it fails the test in the end if a request has left the origin
    paths = [str(path.relative_to(SITE).parent) for path in SITE.rglob("index.html")]
    assert len(paths) > 25
    for path in paths:
        page = visit.open(f"/{path}/")
        broken = "[...document.images].filter(image => image.complete && !image.naturalWidth).map(image => image.src)"
        assert page.evaluate(broken) == [], path
        assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0, path
        assert page.locator("link[rel=preconnect]").count() == 0, path
