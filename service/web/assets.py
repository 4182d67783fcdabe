"""Our own scripts and styles, at addresses that change with what is in them: a browser keeps them and asks no more."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from flask import Flask, Response, send_from_directory

FOREVER: Final = "public, max-age=31536000, immutable"


def register(app: Flask) -> None:
    """Serve them; ``asset(name)`` gives an address to templates.

    All share one version, since modules name each other by their place beside them.
    """
    folder = Path(app.static_folder or "")
    own = _version(folder)

    @app.template_global()
    def asset(name: str) -> str:
        return f"/static/{own}/{name}"

    @app.get("/static/<version>/<path:name>", endpoint="asset")
    def serve(version: str, name: str) -> Response:
        response = send_from_directory(folder, name)
        if version == own:
            response.headers["Cache-Control"] = FOREVER
        # Else another release's page asks, during an upgrade: ours will do, but not for good.
        return response


def _version(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]
