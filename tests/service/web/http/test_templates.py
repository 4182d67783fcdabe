from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path

import pytest
from flask.testing import FlaskClient

import service.web
from service.web.http.templates import VERSION_LENGTH

STATIC = Path(service.web.__file__).parent / "static"
LIBRARIES = STATIC / "lib"


def test_libraries_have_the_published_digests_listed_in_their_readme() -> None:
    listed = dict(re.findall(r"(?m)^\| `([^`]+)` \| .* \| `([0-9a-f]{64})` \|$", (LIBRARIES / "README.md").read_text()))
    files = {path.name for path in LIBRARIES.iterdir()} - {"README.md"}
    assert set(listed) == files
    for name, digest in listed.items():
        assert hashlib.sha256((LIBRARIES / name).read_bytes()).hexdigest() == digest, name


def test_every_library_comes_with_its_licence() -> None:
    rows = re.findall(r"(?m)^\| `([^`]+)` \| npm package `([^`]+)` ([^|]*) \|", (LIBRARIES / "README.md").read_text())
    assert {name for name, _, _ in rows} == {path.name for path in LIBRARIES.iterdir()} - {"README.md"}
    licences = {package: (name, origin) for name, package, origin in rows if "LICENSE" in name}
    assert licences.keys() == {package for _, package, _ in rows}
    for name, origin in licences.values():
        (licence,) = re.findall(r"`LICENSE` \((\w+)\)$", origin)
        assert f"The {licence} License" in (LIBRARIES / name).read_text()


@pytest.mark.parametrize("name", ["common/app.css", "charts/chart.js", "icon.svg", "lib/uPlot.iife.min.js"])
def test_text_is_compressed_for_clients_that_accept_gzip(client: FlaskClient, name: str) -> None:
    with client.get(f"/static/0123456789ab/{name}") as plain:
        assert "Content-Encoding" not in plain.headers
        assert plain.headers["Vary"] == "Accept-Encoding"
        text = plain.data
    compressed = client.get(f"/static/0123456789ab/{name}", headers={"Accept-Encoding": "gzip, br"})
    assert compressed.headers["Content-Encoding"] == "gzip"
    assert compressed.mimetype == plain.mimetype
    assert len(compressed.data) == compressed.content_length
    assert gzip.decompress(compressed.data) == text
    with client.get(f"/static/0123456789ab/{name}", headers={"Accept-Encoding": "gzip;q=0"}) as uncompressed:
        assert uncompressed.data == text


def test_compressed_text_is_not_sent_again_to_clients_with_its_etag(client: FlaskClient) -> None:
    first = client.get("/static/0123456789ab/common/app.css", headers={"Accept-Encoding": "gzip"})
    again = client.get(
        "/static/0123456789ab/common/app.css",
        headers={"Accept-Encoding": "gzip", "If-None-Match": first.headers["ETag"]},
    )
    assert (again.status_code, again.data) == (304, b"")


def test_no_folder_can_be_mistaken_for_a_version(client: FlaskClient) -> None:
    folders = [path.relative_to(STATIC) for path in STATIC.rglob("*") if path.is_dir()]
    assert len(folders) > 10
    assert max(len(folder.parts[0]) for folder in folders) < VERSION_LENGTH
    with client.get("/static/common/app.css") as plain, client.get("/static/0123456789ab/common/app.css") as versioned:
        assert plain.data == versioned.data


def test_a_missing_static_file_is_not_found(client: FlaskClient) -> None:
    assert client.get("/static/0123456789ab/lib/none.js", headers={"Accept-Encoding": "gzip"}).status_code == 404
