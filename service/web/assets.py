"""Scripts and styles, at addresses that change with what is in them: a browser keeps them and asks no more."""

from __future__ import annotations

import functools
import gzip
import hashlib
from pathlib import Path
from typing import Final

from flask import Flask, Response, request, send_from_directory
from markupsafe import Markup
from werkzeug.security import safe_join

FOREVER: Final = "public, max-age=31536000, immutable"
_TEXT: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def register(app: Flask) -> None:
    """Serve them; ``asset(name)`` gives an address to templates.

    All share one version, since modules name each other by their place beside them.
    """
    folder = Path(app.static_folder or "")
    own = _version(folder)
    drawing = (folder / "icon.svg").read_text(encoding="utf-8").replace("<svg ", '<svg aria-hidden="true" ', 1)

    @app.template_global()
    def asset(name: str) -> str:
        return f"/static/{own}/{name}"

    @app.template_global()
    def icon() -> Markup:  # within the page: as an image it would be a document of its own, and a request
        return Markup(drawing)  # noqa: S704 - a file of ours

    @app.get("/static/<version>/<path:name>", endpoint="asset")
    def serve(version: str, name: str) -> Response:
        response = _compressed(folder, name) or send_from_directory(folder, name)
        response.headers["Vary"] = "Accept-Encoding"
        if version == own:
            response.headers["Cache-Control"] = FOREVER
        # Else another release's page asks, during an upgrade: ours will do, but not for good.
        return response

    @app.get("/favicon.ico", endpoint="favicon")
    def favicon() -> Response:  # a browser asks for it where there is no page that could name another
        return send_from_directory(folder, "icon.svg", max_age=86400)


def _compressed(folder: Path, name: str) -> Response | None:
    """A text gzip-compressed, about a third of the bytes; ``None`` where it is to be sent as it is."""
    found = safe_join(str(folder), name)
    if found is None or not request.accept_encodings["gzip"]:
        return None
    path = Path(found)
    media = _TEXT.get(path.suffix)
    if media is None or not path.is_file():
        return None
    response = Response(_gzip(path, path.stat().st_mtime_ns), content_type=f"{media}; charset=utf-8")
    response.headers["Content-Encoding"] = "gzip"
    response.headers["Cache-Control"] = "no-cache, max-age=0"
    response.add_etag()
    response.make_conditional(request)
    return response


@functools.lru_cache(maxsize=256)
def _gzip(path: Path, modified_ns: int) -> bytes:
    return gzip.compress(path.read_bytes(), compresslevel=9, mtime=0)


def _version(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]
