"""Files: stored ones with byte ranges and conditional requests (RFC 9110, sections 13 and 14), pictures, and CSV.

Werkzeug parses ranges and conditions, this module answers them. `make_conditional` refuses (416) what RFC 9110 lets a
server ignore (several ranges, another unit) or satisfy (`bytes=-n` of a shorter file), answers 206 before it looks at
`If-None-Match` and `If-Match` and to `HEAD`, takes a weak ETag in `If-Range`, and leaves the file of a 304 open.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import IO, Any, BinaryIO, Final
from urllib.parse import quote

from flask import Response, request
from pydantic import BaseModel
from werkzeug.datastructures import Range

from service.storage.artifact_rows import use_current
from service.storage.artifacts import ArtifactDamaged, ArtifactStore, disposition
from service.storage.tables import Artifact
from service.web.http.problems import Problem
from service.web.http.responses import not_modified
from service.web.http.schemas import finite

_CHUNK_BYTES: Final = 256 * 1024

HEADERS: Final = ("Range", "If-Range", "If-None-Match", "If-Match")
OTHER_RESPONSES: Final[dict[int, str | type[BaseModel]]] = {
    206: "The part that `Range` names.",
    304: "The client has it.",
}
SAVED_RESPONSES: Final = OTHER_RESPONSES | {
    302: "With `TAPELINE_STORE_REDIRECT=1`: `Location` is a URL of the object store that is valid for 15 minutes, and "
    "takes `Range`. `Repr-Digest` has the SHA-256 of the file.",
}
"""Of downloads that clients save."""
PROBLEMS: Final = (
    "job_not_found",
    "artifact_not_found",
    "precondition_failed",
    "range_not_satisfiable",
    "artifact_damaged",
    "store_unavailable",
)
"""Problems that every download documents."""

OCTETS: Final = "application/octet-stream"
AS_OCTETS: Final = (OCTETS,)
"""``other_media`` of an endpoint whose response is an image or an archive: clients may request it as plain bytes."""

SAVED: Final[dict[str, Any]] = {"other_media": AS_OCTETS, "headers": HEADERS, "other_responses": SAVED_RESPONSES}
"""What all endpoints of archives have in common."""

DRAWN: Final[dict[str, Any]] = {
    "other_media": AS_OCTETS,
    "headers": ("If-None-Match",),
    "other_responses": {304: "The client has it."},
}
"""What all endpoints of drawn images have in common."""

FOREVER: Final = "private, max-age=31536000, immutable"
ASK: Final = "private, no-cache"
_NUMBER: Final = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")  # noqa: RUF001 - spreadsheets know these too
"""Prefixes that make a spreadsheet evaluate a cell as a formula."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawn picture and its ETag."""

    data: bytes
    etag: str


def picture(data: bytes) -> Picture:
    """A picture with the ETag of its content."""
    return Picture(data, hashlib.sha256(data).hexdigest()[:32])


def send_artifact(
    store: ArtifactStore,
    find: Callable[[], Artifact],
    *,
    cache: str,
    draw: Callable[[bytes], bytes] | None = None,
) -> Response:
    """The response with a stored file, or a redirection to it.

    Args:
        find: looks up the file's row; called again if the file was just removed.
        cache: ``FOREVER`` if the URL always refers to this file, otherwise ``ASK``.
        draw: makes what the client shows from what is stored, and does not save it. Such files are not redirected: a
            page may load images only from its own server.

    Raises:
        ArtifactDamaged: the row exists, but not the file.
    """
    # The conditions of a client name our ETag, which is not that of the object.
    if store.redirects and draw is None and not request.if_match and "If-Range" not in request.headers:
        row = find()
        if (url := store.download_url(row.path, method=request.method)) is not None:
            return _redirect(row, url)
    opened = _open if draw is None else partial(_draw, draw)
    row, file = use_current(find, partial(opened, store))
    try:
        return _respond(row, file, cache=cache, is_shown=draw is not None)
    except BaseException:
        file.close()
        raise


def cache_of(reference: str) -> str:
    """The cache policy of a file: that of a numbered epoch never changes, ``best`` and ``latest`` do."""
    return FOREVER if reference.isdigit() else ASK


def send_picture(picture: Picture, media_type: str) -> Response:
    """The response with a drawn picture."""
    headers = {"ETag": f'"{picture.etag}"', "Cache-Control": ASK}
    if request.if_none_match.contains_weak(picture.etag):
        return not_modified(headers)
    return Response(picture.data, headers=headers, content_type=_accepted(media_type))


def send_text(text: str | Iterator[str], *, name: str, media_type: str) -> Response:
    """The response with a text file to save."""
    response = Response(text, content_type=f"{media_type}; charset=utf-8")
    response.headers["Content-Disposition"] = attachment(name)
    return response


def send_file(file: IO[bytes], media_type: str, headers: Mapping[str, str]) -> Response:
    """The response with a temporary file, which is closed at its end."""
    size = file.seek(0, os.SEEK_END)
    response = Response(_read(file, 0, size), headers=headers, content_type=media_type)
    response.content_length = size
    response.call_on_close(file.close)
    return response


def attachment(name: str) -> str:
    """``Content-Disposition`` for a file to save, with an ASCII name and, if that differs, the full name (RFC 6266)."""
    name = re.sub(r"[\x00-\x1f\x7f/\\\\]", "_", name).lstrip(".") or "download"
    ascii_name = re.sub(r'[^\x20-\x7e]|["%;]', "_", name)
    full_name = "" if ascii_name == name else f"; filename*=UTF-8''{quote(name, safe='')}"
    return f'attachment; filename="{ascii_name}"{full_name}'


def _accepted(media_type: str) -> str:
    """The media type of a file, or ``OCTETS`` for a client that accepts only that. The bytes are the same, so a cache
    can serve one for the other."""
    return request.accept_mimetypes.best_match([media_type, OCTETS], default=media_type)


def _open(store: ArtifactStore, row: Artifact) -> tuple[Artifact, BinaryIO]:
    file = store.open(row.path)
    size = file.seek(0, os.SEEK_END)
    if size != row.size_bytes:
        file.close()
        raise ArtifactDamaged(row.path, f"has {size} bytes instead of {row.size_bytes}")
    return row, file


def _draw(draw: Callable[[bytes], bytes], store: ArtifactStore, row: Artifact) -> tuple[Artifact, BinaryIO]:
    """What is drawn from a file, described as if it were stored."""
    data = draw(store.read(row.path, row.sha256))
    same = {name: getattr(row, name) for name in ("job_id", "kind", "epoch", "path", "media_type")}
    return Artifact(**same, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest()), io.BytesIO(data)


def _headers(row: Artifact, *, cache: str, is_shown: bool = False) -> dict[str, str]:
    headers = {
        "ETag": f'"{row.sha256}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": cache,
        "Repr-Digest": f"sha-256=:{base64.b64encode(bytes.fromhex(row.sha256)).decode()}:",
    }
    if not is_shown:
        headers["Content-Disposition"] = disposition(row.job_id, row.kind, row.epoch)
    return headers


def _redirect(row: Artifact, url: str) -> Response:
    headers = _headers(row, cache="no-store")
    if request.if_none_match.contains_weak(row.sha256):
        return not_modified(headers)
    return Response(status=302, headers=headers | {"Location": url}, content_type=OCTETS)


def _respond(row: Artifact, file: BinaryIO, *, cache: str, is_shown: bool) -> Response:
    etag, size = row.sha256, row.size_bytes
    headers = _headers(row, cache=cache, is_shown=is_shown)
    if request.if_match and not request.if_match.contains(etag):
        raise Problem("precondition_failed", "the file has changed: its ETag does not match If-Match", headers=headers)
    if request.if_none_match.contains_weak(etag):
        file.close()
        return not_modified(headers)
    start, stop = 0, size
    status = 200
    if (requested := _requested_range(size, etag)) is not None:
        byte_range, content_range = requested.range_for_length(size), requested.to_content_range_header(size)
        if byte_range is None or content_range is None:
            headers["Content-Range"] = f"bytes */{size}"
            raise Problem("range_not_satisfiable", f"the file has {size} bytes", headers=headers)
        start, stop = byte_range
        status = 206
        headers["Content-Range"] = content_range
    if request.method == "HEAD":  # Werkzeug drops the content of a HEAD response without closing it
        file.close()
        response = Response(status=status, headers=headers, content_type=_accepted(row.media_type))
    else:
        content = _read(file, start, stop - start)
        if status == 200:
            content = _verified(row, content)
            content = chain((next(content),), content)  # an error at the beginning is still a problem
        response = Response(content, status, headers=headers, content_type=_accepted(row.media_type))
        response.call_on_close(file.close)
    response.content_length = stop - start
    return response


def _requested_range(size: int, etag: str) -> Range | None:
    """The requested range of a file of ``size`` bytes, if any; invalid and multiple ranges are ignored, as the RFC
    specifies."""
    condition, requested = request.headers.get("If-Range", "").strip(), request.range
    if request.method != "GET" or requested is None or (condition and condition != f'"{etag}"'):
        return None
    if requested.units != "bytes" or len(requested.ranges) != 1:
        return None
    ((start, stop),) = requested.ranges
    return Range("bytes", [(max(start, -size), stop)])  # the last n bytes of a shorter file are all of it


def _read(file: IO[bytes], start: int, remaining: int) -> Iterator[bytes]:
    file.seek(start)
    while remaining > 0 and (chunk := file.read(min(_CHUNK_BYTES, remaining))):
        remaining -= len(chunk)
        yield chunk


def _verified(row: Artifact, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The content of a whole file, whose last chunk is sent only if its SHA-256 is right: the client of a damaged file
    gets an incomplete one."""
    sha256, held = hashlib.sha256(), b""
    for chunk in chunks:
        if held:
            yield held
        sha256.update(chunk)
        held = chunk
    if sha256.hexdigest() != row.sha256:
        raise ArtifactDamaged(row.path, "its SHA-256 differs from the stored one")
    yield held


def csv_cell(value: Any) -> str:
    """A value as a cell that spreadsheets do not evaluate as a formula."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str():
            # A spreadsheet would evaluate a job's name that starts like a formula.
            return f"'{value}" if value.startswith(_FORMULA) and not _NUMBER.fullmatch(value) else value
        case list() if all(isinstance(item, str) for item in value):
            return csv_cell(", ".join(value))
        case dict() | list():
            return json.dumps(finite(value), ensure_ascii=False)
        case _:
            return str(value)


def csv_line(cells: Sequence[str]) -> str:
    """Cells as a line of CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return text.getvalue()
