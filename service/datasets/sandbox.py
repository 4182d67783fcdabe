"""Reads untrusted files in separate processes with limited memory and time; the formats of uploads and their limits.

``python -m service.datasets.sandbox`` is such a process: it imports an upload, or reads images or a table for a
prediction. It reads a request as JSON from standard input. It writes lines of JSON to standard output: the fraction
that is done, a few times a second, and the response as the last one. It has no access to the database, to keys or to
addresses of other services.
"""

from __future__ import annotations

import base64
import errno
import importlib
import io
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from service.datasets.errors import DatasetBroken
from service.datasets.formats.options import PhotoOptions, TableOptions, restored
from service.datasets.importer import (
    ARCHIVE,
    DEFAULT_PHOTOS,
    IDX_FIELDS,
    MAX_UNPACKED_BYTES,
    UploadRefused,
    import_dataset,
    is_image_archive,
)
from service.datasets.info import ImportedDataset, OnProgress
from service.datasets.tables import prediction_files
from service.datasets.tables.importing import import_table
from service.datasets.tables.plan import TABLE
from service.datasets.tables.prediction_files import PreparedFile, RowsRefused
from service.errors import Fault
from service.runtime import process_limits
from service.states import DatasetKind
from tapeline.errors import UnreadableImage
from tapeline.images.files import Size

_IMAGE_CPU_S: Final = 20
_WALL_FACTOR: Final = 2
_MAX_OPEN_FILES: Final = 32
_OOM_SCORE: Final = 1000
NICENESS: Final = 3
"""Of a process that reads files: it yields to the web process and to those that start, but not to trainings."""
_TOO_MUCH: Final = "cannot be decoded within the limits on memory and time: scale it down"
_REPORT_INTERVAL_S: Final = 0.2
_MAX_RESPONSE_BYTES: Final = 64 * 2**20
_MAX_LOG_BYTES: Final = 2000
_INHERITED_VARIABLES: Final = ("PATH", "PYTHONPATH", "LANG", "HOME", "SYSTEMROOT", "LD_LIBRARY_PATH")


Decoded = NDArray[np.uint8] | UnreadableImage

DEFAULT_TABLE: Final = TableOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadFormat:
    """A format of uploads.

    Attributes:
        label: such files, for people.
        fields: of the form, with its files.
        options: the defaults of the options that only this format has.
        memory_bytes: that the process may map in addition to what it has after importing NumPy.
    """

    label: str
    fields: tuple[str, ...]
    options: PhotoOptions | TableOptions | None = None
    memory_bytes: int = 48 * 2**20
    cpu_s: int = 60


IMAGE_ARCHIVE: Final = UploadFormat(
    label="archives of image files",
    fields=(ARCHIVE,),
    options=DEFAULT_PHOTOS,
    memory_bytes=512 * 2**20,  # enough to decode, rotate and scale an image of 32 million pixels
    cpu_s=300,
)
NPZ_ARCHIVE: Final = UploadFormat(label="NPZ files", fields=(ARCHIVE,))
IDX_FILES: Final = UploadFormat(label="IDX files as images and labels", fields=IDX_FIELDS)
TABLE_FILE: Final = UploadFormat(
    label="tables",
    fields=(TABLE,),
    options=DEFAULT_TABLE,
    memory_bytes=192 * 2**20,  # enough for the labels of 10 million rows, and blocks of 2,000 columns
    cpu_s=300,
)
FORMATS: Final = (IMAGE_ARCHIVE, NPZ_ARCHIVE, IDX_FILES, TABLE_FILE)
FIELDS: Final = tuple(dict.fromkeys(field for entry in FORMATS for field in entry.fields))
"""The form fields that contain files."""


def import_in_sandbox(
    files: Mapping[str, Path],
    folder: Path,
    *,
    fraction: float | None,
    photos: PhotoOptions = DEFAULT_PHOTOS,
    table: TableOptions | None = None,
    on_progress: OnProgress = lambda done: None,
) -> ImportedDataset:
    """Import an upload in the sandbox, with the reader of its format.

    Raises:
        UploadRefused: the files are not a valid dataset, or exceeded the limits on memory or time.
        OSError: the result could not be written.
    """
    request = {
        "files": {field: str(path) for field, path in files.items()},
        "folder": str(folder),
        "fraction": fraction,
        "photos": asdict(photos),
        "table": asdict(table or DEFAULT_TABLE),
    }
    try:
        response = _run(request, cpu_s=_format_of(files).cpu_s, on_progress=on_progress)
    except _SandboxFailed as error:
        raise UploadRefused({next(iter(files)): str(error)}) from error
    if "faults" in response:
        raise UploadRefused(response["faults"])
    if "storage" in response:
        raise OSError(*response["storage"])
    imported = response["imported"]
    return ImportedDataset(**imported | {"kind": DatasetKind(imported["kind"])})


def decode_in_sandbox(
    files: Sequence[bytes], *, size: Size | None, pads: bool, grey: bool, max_pixels: int
) -> list[Decoded]:
    """The pixels of image files, (rows, columns) or (rows, columns, 3), or the reason why there are none.

    The pixels equal those of an import with the same options.

    Args:
        size: fit each image to this size; with ``pads``, with borders instead of cropping it.
        max_pixels: maximum number of pixels of all images together.
    """
    request = {
        "images": [base64.b64encode(data).decode() for data in files],
        "size": size,
        "pads": pads,
        "grey": grey,
        "max_pixels": max_pixels,
    }
    decoded: list[Decoded] = []
    with tempfile.TemporaryFile() as output:
        fd = output.fileno()
        try:
            response = _run(request | {"output": fd}, cpu_s=_IMAGE_CPU_S, pass_fds=[fd])
        except _SandboxFailed:
            return [UnreadableImage(_TOO_MUCH)] * len(files)
        offset = 0
        for entry in response["images"]:
            if "fault" in entry:
                decoded.append(UnreadableImage(entry["fault"]))
            else:
                shape = tuple(entry["shape"])
                decoded.append(np.memmap(output, np.uint8, "r", offset, shape))
                offset += math.prod(shape)
    return decoded


def prepare_in_sandbox(
    folder: Path, *, columns: Sequence[Mapping[str, Any]], unused: Sequence[str], class_names: Sequence[str]
) -> PreparedFile:
    """``prediction_files.prepare`` in the sandbox, with the limits of a table's import.

    Raises:
        RowsRefused: the file does not fit the model, or exceeded the limits on memory or time.
        OSError: the results could not be written.
    """
    facts = {"columns": columns, "unused": unused, "class_names": class_names}
    try:
        response = _run({"rows": str(folder), **facts}, cpu_s=TABLE_FILE.cpu_s)
    except _SandboxFailed as error:
        raise RowsRefused([Fault(pointer="#", detail=str(error), code="out_of_range")]) from error
    if "faults" in response:
        raise RowsRefused([Fault(**fault) for fault in response["faults"]])
    if "storage" in response:
        raise OSError(*response["storage"])
    return PreparedFile(**response)


def write_in_sandbox(folder: Path, prepared: PreparedFile, class_names: Sequence[str], *, as_csv: bool) -> None:
    """``prediction_files.write`` in the sandbox: the web process has other requests to answer.

    Raises:
        RowsRefused: the result exceeded the limits on time or size.
        OSError: it could not be written.
    """
    request = {"result": str(folder), "prepared": asdict(prepared), "class_names": class_names, "as_csv": as_csv}
    try:
        response = _run(request, cpu_s=TABLE_FILE.cpu_s)
    except _SandboxFailed as error:
        raise RowsRefused([Fault(pointer="#", detail=str(error), code="out_of_range")]) from error
    if "storage" in response:
        if response["storage"][0] == errno.EFBIG:
            detail = f"the result is larger than {MAX_UNPACKED_BYTES:,} bytes: send the file in parts"
            raise RowsRefused([Fault(pointer="#", detail=detail, code="out_of_range")])
        raise OSError(*response["storage"])


class _SandboxFailed(Exception):
    """The process exceeded its limits."""


def _format_of(files: Mapping[str, Path]) -> UploadFormat:
    """The format of files by form field; the first bytes of an archive show its kind."""
    entry = next((entry for entry in (TABLE_FILE, NPZ_ARCHIVE) if entry.fields[0] in files), IDX_FILES)
    return IMAGE_ARCHIVE if entry is NPZ_ARCHIVE and is_image_archive(files[ARCHIVE]) else entry


def _check(entry: UploadFormat, files: Mapping[str, Path], photos: PhotoOptions, table: TableOptions) -> None:
    """Refuse files and options of other formats.

    Raises:
        UploadRefused
    """
    if not files.keys() <= set(entry.fields):
        raise UploadRefused({entry.fields[0]: "must be the only file"})
    faults: dict[str, str] = {}
    for other, given in ((IMAGE_ARCHIVE, photos), (TABLE_FILE, table)):
        changed = [
            item.name for item in fields(given) if getattr(given, item.name) != getattr(other.options, item.name)
        ]
        if changed and entry is not other:
            faults |= dict.fromkeys(changed, f"is for {other.label}")
    if faults:
        raise UploadRefused(faults)


def _run(
    request: Mapping[str, Any],
    *,
    cpu_s: int,
    on_progress: OnProgress = lambda done: None,
    pass_fds: Sequence[int] = (),
) -> dict[str, Any]:
    """Run a process with a request; returns its response.

    Raises:
        _SandboxFailed
    """
    environ = {name: os.environ[name] for name in _INHERITED_VARIABLES if name in os.environ}
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as log:
        stdin.write(json.dumps(request).encode())
        stdin.seek(0)
        child = subprocess.Popen(
            [sys.executable, "-m", "service.datasets.sandbox"],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environ | {"OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,
            pass_fds=pass_fds,
        )
        with child, _kill_after(child, _WALL_FACTOR * cpu_s) as is_late:
            response = _read_response(cast("IO[bytes]", child.stdout), on_progress)
        if is_late.is_set():
            raise _SandboxFailed(f"was not read within {_WALL_FACTOR * cpu_s} seconds")
        if child.returncode == 0 and response:
            return response
        log.seek(max(0, log.seek(0, os.SEEK_END) - _MAX_LOG_BYTES))
        log_text = log.read().decode("utf-8", "replace")
    import structlog  # only here: it loads Rich, which takes a third of the start of the process

    structlog.get_logger("tapeline.web").error("files could not be read", code=child.returncode, said=log_text)
    raise _SandboxFailed("cannot be read within the limits on memory and time")


@contextmanager
def _kill_after(child: subprocess.Popen[bytes], seconds: float) -> Iterator[threading.Event]:
    """Kill a process that takes longer; the event is set if this happened."""
    is_late = threading.Event()

    def kill() -> None:
        is_late.set()
        child.kill()

    timer = threading.Timer(seconds, kill)
    timer.start()
    try:
        yield is_late
        child.wait()
    except BaseException:
        child.kill()
        raise
    finally:
        timer.cancel()


def _read_response(stdout: IO[bytes], on_progress: OnProgress) -> dict[str, Any]:
    """The response of a process, or an empty dict if there is none."""
    while line := stdout.readline(_MAX_RESPONSE_BYTES):
        try:
            message = json.loads(line)
        except ValueError:  # cut off, as by a signal
            return {}
        if not isinstance(message, dict):
            return {}
        match message.get("done"):
            case None:
                return message
            case float() | int() as done if 0 <= done <= 1:
                on_progress(done)
    return {}


def main() -> None:
    """Read one request from standard input, and write the response to standard output."""
    json.dump(respond(json.load(sys.stdin), _Reporter()), sys.stdout)


def respond(request: Mapping[str, Any], on_progress: OnProgress) -> dict[str, Any]:
    """The response to a request, in a process that has read no other: its limits are applied."""
    try:
        if "images" in request:
            return _decode(request)
        if "rows" in request:
            return _prepare(request)
        if "result" in request:
            return _write(request)
        return _import(request, on_progress)
    except OSError as error:
        return {"storage": [error.errno, error.strerror]}


def _decode(request: Mapping[str, Any]) -> dict[str, Any]:
    """Decode images and write their pixels to the inherited file; returns the shape or the error of each."""
    from tapeline.images.decoding import open_image, pixels_of

    apply_limits(_IMAGE_CPU_S, IMAGE_ARCHIVE.memory_bytes)
    size = tuple(request["size"]) if request["size"] else None
    responses: list[dict[str, Any]] = []
    remaining_pixels = request["max_pixels"]
    with os.fdopen(request["output"], "wb") as output:
        for text in request["images"]:
            try:
                with open_image(io.BytesIO(base64.b64decode(text))) as image:
                    remaining_pixels -= image.width * image.height
                    if remaining_pixels < 0:
                        limit_hint = f"at most {request['max_pixels']:,} are read in one request"
                        raise UnreadableImage(f"has too many pixels, together with the images before it; {limit_hint}")
                    pixels = np.asarray(pixels_of(image, size, grey=request["grey"], pads=request["pads"]))
            except UnreadableImage as error:
                responses.append({"fault": str(error)})
            else:
                responses.append({"shape": pixels.shape})
                output.write(pixels.tobytes())
    return {"images": responses}


def _prepare(request: Mapping[str, Any]) -> dict[str, Any]:
    apply_limits(TABLE_FILE.cpu_s, TABLE_FILE.memory_bytes)
    facts = {name: request[name] for name in ("columns", "unused", "class_names")}
    try:
        return asdict(prediction_files.prepare(Path(request["rows"]), **facts))
    except RowsRefused as error:
        return {"faults": [asdict(fault) for fault in error.faults]}
    except DatasetBroken as error:
        return {"faults": [asdict(Fault(pointer="#", detail=error.reason, code="invalid_value"))]}


def _write(request: Mapping[str, Any]) -> dict[str, Any]:
    apply_limits(TABLE_FILE.cpu_s, TABLE_FILE.memory_bytes)
    facts = {name: request[name] for name in ("class_names", "as_csv")}
    prediction_files.write(Path(request["result"]), PreparedFile(**request["prepared"]), **facts)
    return {"written": True}


def _import(request: Mapping[str, Any], on_progress: OnProgress) -> dict[str, Any]:
    files, folder = {field: Path(path) for field, path in request["files"].items()}, Path(request["folder"])
    upload_format, fraction = _format_of(files), request["fraction"]
    if upload_format is IMAGE_ARCHIVE:
        importlib.import_module("service.datasets.formats.photos")  # Pillow does not count toward the limit on memory
    apply_limits(upload_format.cpu_s, upload_format.memory_bytes)
    photos, table = restored(PhotoOptions, request["photos"]), restored(TableOptions, request["table"])
    try:
        _check(upload_format, files, photos, table)
        if upload_format is TABLE_FILE:
            imported = import_table(files[TABLE], folder, fraction=fraction, options=table, on_progress=on_progress)
        else:
            imported = import_dataset(files, folder, fraction=fraction, photos=photos, on_progress=on_progress)
    except UploadRefused as error:
        return {"faults": error.faults}
    return {"imported": asdict(imported)}


class _Reporter:
    """Reports the progress to the parent process, a few times a second."""

    def __init__(self) -> None:
        self._due = time.monotonic() + _REPORT_INTERVAL_S

    def __call__(self, done: float) -> None:
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + _REPORT_INTERVAL_S
            sys.stdout.write(json.dumps({"done": round(done, 4)}) + "\n")
            sys.stdout.flush()


def apply_limits(cpu_s: int, memory_bytes: int) -> None:
    """Apply the limits to this process, and lower its priority; neither can be undone."""
    os.nice(NICENESS)
    process_limits.limit(resource.RLIMIT_CPU, cpu_s, is_final=True)
    process_limits.limit(resource.RLIMIT_FSIZE, MAX_UNPACKED_BYTES + 2**20, is_final=True)
    process_limits.limit(resource.RLIMIT_NOFILE, _MAX_OPEN_FILES, is_final=True)
    process_limits.limit(resource.RLIMIT_CORE, 0, is_final=True)
    process_limits.limit_memory(memory_bytes, is_final=True)
    process_limits.offer_to_oom_killer(_OOM_SCORE)


if __name__ == "__main__":
    main()
