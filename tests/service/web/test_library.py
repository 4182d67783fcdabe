from __future__ import annotations

import gzip

from flask.testing import FlaskClient

from service.web import library


def test_the_chart_library_comes_packed_and_may_be_kept(client: FlaskClient) -> None:
    plain = client.get(library.ADDRESS)
    assert (plain.status_code, plain.mimetype) == (200, "text/javascript")
    assert "immutable" in plain.headers["Cache-Control"]
    assert plain.data.startswith(b"/**\n* plotly.js")
    packed = client.get(library.ADDRESS, headers={"Accept-Encoding": "gzip, br"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert len(packed.data) < len(plain.data) / 2
    assert gzip.decompress(packed.data) == plain.data
    assert client.get(library.ADDRESS, headers={"Accept-Encoding": "gzip;q=0"}).data == plain.data
