"""What all templates use: filters, and scripts and styles at URLs that contain a digest of their content, so that
browsers cache them forever."""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
import re
from pathlib import Path
from typing import Any, Final

from flask import Flask, Response, request, send_from_directory
from jinja2 import FileSystemLoader, PrefixLoader
from markupsafe import Markup, escape
from werkzeug.security import safe_join

from service import declarations, kinds
from service.declarations import Room
from service.jobs.queries import columns
from service.kinds.pages import page_of
from service.schema.findings import assignments
from service.spec import metric_info
from service.web.http.responses import own_address
from service.wording import counted, rounded

NOTHING: Final = "\N{EN DASH}"
"""Shown for a missing value."""
FOREVER: Final = "public, max-age=31536000, immutable"
VERSION_LENGTH: Final = 12
FILES: Final = frozenset({"static", "asset", "favicon"})
"""The routes of scripts, styles and images: no operations of the API, and public."""
_TEXT_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_CODE: Final = re.compile(r"`([^`]+)`")


def register(app: Flask) -> None:
    """Find the templates of each subject, add their filters, and serve the files that they use.

    ``jobs/index.html`` is ``jobs/templates/index.html``, of a folder beside this one or of a feature,
    ``gan/latent.html`` is in the folder of that kind, and ``common/base.html`` is ``templates/base.html``.
    """
    root = Path(app.root_path)
    folders = {"common": root / "templates"}
    for parent in (root, root.parent / "kinds"):
        folders |= {folder.parent.name: folder for folder in parent.glob("*/templates")}
    folders |= {item.name: item.folder / "templates" for item in declarations.installed() if Room.PAGES in item.rooms}
    app.jinja_env.loader = PrefixLoader({name: FileSystemLoader(folder) for name, folder in folders.items()})
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    _serve_files(app)
    app.jinja_env.filters |= {
        "assignments": assignments,
        "pretty": pretty,
        "code": code,
        "constraints": constraints,
        "duration": metric_info.duration,
        "counted": counted,
        "size": metric_info.size,
        "column_label": lambda name: columns.parse(name).label,
        "metric_label": lambda name: metric_info.describe(name).label,
        "metric_value": metric_value,
        "percentage": percentage,
        "plain": plain,
    }
    app.jinja_env.globals |= {"kind_of": kinds.of, "page_of": page_of, "kind_documents": kinds.documents}
    app.jinja_env.globals["metric_documents"] = metric_info.documents
    app.jinja_env.globals["tapeline_command"] = tapeline_command


def tapeline_command() -> str:
    """The command, with the address of this service if it is not the one where the command looks for it."""
    address = own_address()
    is_default = address in ("http://127.0.0.1:8000", "http://localhost:8000")
    return "tapeline" if is_default else f"tapeline --server {address}"


def pretty(document: Any) -> str:
    """A document as indented JSON."""
    return json.dumps(document, indent=2, ensure_ascii=False)


def code(text: str) -> Markup:
    """Text with the parts in backticks as ``<code>``."""
    segments = _CODE.split(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(segment) if index % 2 else escape(segment)
        for index, segment in enumerate(segments)
    )


def metric_value(value: float | None, name: str) -> str:
    """A metric's value in its unit."""
    return NOTHING if value is None else metric_info.number(name, value)


def plain(value: float | int | str | None) -> str:
    """A number of any size, to four digits; text as it is."""
    if value is None:
        return NOTHING
    return rounded(value) if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value


def percentage(value: float | None) -> str:
    """A ratio as a percentage."""
    return NOTHING if value is None else f"{value:.1%}"


def constraints(schema: dict[str, Any]) -> str:
    """The allowed values and the default in a parameter's schema, in words."""
    options = [schema, *schema.get("anyOf", [])]
    words = []
    for option in options:
        if "enum" in option:
            words.append("One of " + ", ".join(option["enum"]) + ".")
        if "minimum" in option or "maximum" in option:
            words.append(f"From {option.get('minimum', 'any')} to {option.get('maximum', 'any')}.")
    default = schema.get("default")
    if default not in (None, [], False):
        words.append(f"Default: {default}.")
    return " ".join(words)


def _serve_files(app: Flask) -> None:
    """Serve the files; in templates, ``asset(name)`` returns the URL of a file. Those of a feature are in a folder with
    its name.

    All files share one version, because modules import each other by relative URLs.
    """
    folder = Path(app.static_folder or "")
    of_features = {item.name: item.folder / "static" for item in declarations.installed() if Room.PAGES in item.rooms}
    own_version = _version(folder, *of_features.values())
    drawing = (folder / "icon.svg").read_text(encoding="utf-8").replace("<svg ", '<svg aria-hidden="true" ', 1)

    @app.template_global()
    def asset(name: str) -> str:
        return f"/static/{own_version}/{name}"

    @app.template_global()
    def icon() -> Markup:  # inline: as an image it would not inherit the page's styles, and need a request
        return Markup(drawing)  # noqa: S704 - a file of ours

    # No folder has a name as long as a version, so paths without a version are left to Flask's own route.
    @app.get(f"/static/<string(length={VERSION_LENGTH}):version>/<path:name>", endpoint="asset")
    def serve(version: str, name: str) -> Response:
        feature, _, rest = name.partition("/")
        place = (of_features[feature], rest) if feature in of_features else (folder, name)
        response = _compressed(*place) or send_from_directory(*place)
        response.headers["Vary"] = "Accept-Encoding"
        if version == own_version:
            response.headers["Cache-Control"] = FOREVER
        # Otherwise a page of another release requests it during an upgrade: serve ours, but without long caching.
        return response

    @app.get("/favicon.ico", endpoint="favicon")
    def favicon() -> Response:  # browsers request this URL if a document names no icon
        return send_from_directory(folder, "icon.svg", max_age=86400)


def _compressed(folder: Path, name: str) -> Response | None:
    """The gzip-compressed response for a text file, about a third of the size; ``None``: send the file as it is."""
    safe_path = safe_join(str(folder), name)
    if safe_path is None or not request.accept_encodings["gzip"]:
        return None
    path = Path(safe_path)
    media_type = _TEXT_TYPES.get(path.suffix)
    if media_type is None or not path.is_file():
        return None
    response = Response(_gzip(path, path.stat().st_mtime_ns), content_type=f"{media_type}; charset=utf-8")
    response.headers["Content-Encoding"] = "gzip"
    response.headers["Cache-Control"] = "no-cache, max-age=0"
    response.add_etag()
    response.make_conditional(request)
    return response


@functools.lru_cache(maxsize=256)
def _gzip(path: Path, modified_ns: int) -> bytes:
    return gzip.compress(path.read_bytes(), compresslevel=9, mtime=0)


@functools.cache
def _version(*folders: Path) -> str:
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            digest.update(str(path.relative_to(folder)).encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:VERSION_LENGTH]
