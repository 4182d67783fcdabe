"""The one script that others wrote: Plotly, which draws the charts, served from the package that brings it."""

from __future__ import annotations

import functools
import gzip
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from flask import Flask, Response, request

from service.web.assets import FOREVER

_VERSION: Final = version("plotly")
ADDRESS: Final = f"/static/lib/plotly-{_VERSION}.min.js"
"""Another version has another address: so it may be kept for good."""
STYLE_HASHES: Final = (
    "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='",  # an empty one, whose rules come by script
    "'sha256-ji27qzEtxXZW+7dun6UwjHXJ18e6WAin1VvNtkzIE/o='",  # rules for maps, which we do not draw
)
"""Of the style elements that it adds, for the policy. They belong to the version; the browser tests would tell."""


def register(app: Flask) -> None:
    """Serve the script."""

    @app.get(ADDRESS, endpoint="library")
    def library() -> Response:
        packed = bool(request.accept_encodings["gzip"])
        response = Response(_packed() if packed else _text(), content_type="text/javascript; charset=utf-8")
        if packed:
            response.headers["Content-Encoding"] = "gzip"
        response.headers["Vary"] = "Accept-Encoding"
        response.headers["Cache-Control"] = FOREVER
        return response


def _text() -> bytes:
    found = find_spec("plotly")
    if found is None or found.origin is None:
        raise RuntimeError("the package plotly is not installed")
    return (Path(found.origin).parent / "package_data" / "plotly.min.js").read_bytes()


@functools.lru_cache(maxsize=1)
def _packed() -> bytes:
    """5 MB become 1.5, once a process."""
    return gzip.compress(_text(), compresslevel=6)
