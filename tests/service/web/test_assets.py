from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path

import pytest
from flask.testing import FlaskClient

import service.web

LIBRARIES = Path(service.web.__file__).parent / "static" / "lib"


def test_libraries_are_the_files_that_their_makers_published() -> None:
    listed = dict(re.findall(r"(?m)^\| `([^`]+)` \| .* \| `([0-9a-f]{64})` \|$", (LIBRARIES / "README.md").read_text()))
    there = {path.name for path in LIBRARIES.iterdir()} - {"README.md"}
    assert set(listed) == there
    for name, digest in listed.items():
        assert hashlib.sha256((LIBRARIES / name).read_bytes()).hexdigest() == digest, name


def test_every_library_comes_with_its_licence() -> None:
    assert "The MIT License" in (LIBRARIES / "uPlot.LICENSE.txt").read_text()


@pytest.mark.parametrize("name", ["app.css", "chart.js", "icon.svg", "lib/uPlot.iife.min.js"])
def test_text_is_compressed_for_those_who_accept_it(client: FlaskClient, name: str) -> None:
    with client.get(f"/static/x/{name}") as plain:
        assert "Content-Encoding" not in plain.headers
        assert plain.headers["Vary"] == "Accept-Encoding"
        text = plain.data
    packed = client.get(f"/static/x/{name}", headers={"Accept-Encoding": "gzip, br"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert packed.mimetype == plain.mimetype
    assert len(packed.data) == packed.content_length
    assert gzip.decompress(packed.data) == text
    with client.get(f"/static/x/{name}", headers={"Accept-Encoding": "gzip;q=0"}) as refused:
        assert refused.data == text


def test_compressed_text_is_not_sent_again_to_those_who_have_it(client: FlaskClient) -> None:
    first = client.get("/static/x/app.css", headers={"Accept-Encoding": "gzip"})
    again = client.get("/static/x/app.css", headers={"Accept-Encoding": "gzip", "If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


def test_a_file_that_is_not_there_is_not_found(client: FlaskClient) -> None:
    assert client.get("/static/x/lib/none.js", headers={"Accept-Encoding": "gzip"}).status_code == 404
