"""Operations of a client on datasets."""

from __future__ import annotations

import json
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, Final, Literal, cast

from tapeline.connection import UPLOAD_TIMEOUT_S, Connection, json_body, segment
from tapeline.errors import ApiError, ClientError
from tapeline.images.files import Size, parse_size
from tapeline.inputs.uploads import field_of, pack

StrPath = str | os.PathLike[str]
_WATCH_INTERVAL_S: Final = 0.25  # as often as the service records the progress


class DatasetOperations:
    """The methods of ``Client`` for datasets."""

    _connection: Connection

    def datasets(self) -> Sequence[dict[str, Any]]:
        """The datasets that specs can use."""
        datasets: Sequence[dict[str, Any]] = self._connection.json("GET", "/datasets")["data"]
        return datasets

    def dataset(self, name: str) -> dict[str, Any]:
        """A dataset, with the number of examples of each class as ``class_counts``."""
        return self._connection.json("GET", f"/datasets/{segment(name)}")

    def dataset_columns(self, name: str) -> dict[str, Any]:
        """Statistics of the columns of a table."""
        return self._connection.json("GET", f"/datasets/{segment(name)}/columns")

    def dataset_examples(
        self, name: str, *, part: str = "train", label: int | None = None, limit: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """Iterate over the images of a dataset, or the rows of a table; pages are fetched as needed.

        Args:
            part: ``train``, ``validation`` or ``test``.
            label: index of a class: only its examples.
            limit: maximum number of examples.
        """
        resource = "rows" if self.dataset(name)["kind"] == "table" else "examples"
        yield from self._content(name, resource, part, label, limit)

    def dataset_rows(
        self, name: str, *, part: str = "train", label: int | None = None, limit: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """Iterate over the rows of a table; see ``dataset_examples``."""
        return self._content(name, "rows", part, label, limit)

    def _content(
        self, name: str, resource: str, part: str, label: int | None, limit: int | None
    ) -> Iterator[dict[str, Any]]:
        params = {"part": part} | ({} if label is None else {"class": str(label)})
        return self._connection.items(f"/datasets/{segment(name)}/{resource}", params, limit=limit)

    def upload(
        self,
        name: str,
        files: Mapping[str, StrPath] | StrPath,
        *,
        validation_fraction: float | None = None,
        size: str | None = None,
        fit: Literal["crop", "pad"] | None = None,
        channels: Literal["1", "3", "auto"] | None = None,
        on_bad: Literal["error", "skip"] | None = None,
        target: str | None = None,
        types: Mapping[str, str] | None = None,
        split: str | None = None,
        dry_run: bool = False,
        spec: Mapping[str, Any] | None = None,
        on_progress: Callable[[int], None] | None = None,
        on_reading: Callable[[float], None] | None = None,
    ) -> dict[str, Any]:
        """Upload a dataset; returns its document, with ``created``.

        If the service has exactly this data under this name already, nothing is stored: ``created`` is false and the
        document is that of the existing version. That may be an older one; ``version`` names it in specs.

        Args:
            files: a path: a folder with a folder of image files for each class, an archive, or a table (CSV or TSV); or
                form fields and paths: ``table``, ``archive``, or ``images`` and ``labels``, optionally with
                ``validation_images`` and ``validation_labels``. Files are streamed.
            validation_fraction: fraction of each class that becomes validation data, if there are no files for it.
            size: scale image files, such as to ``32`` or ``32x24`` (width x height). Those of a folder are scaled
                before they are sent, which gives the same dataset.
            fit: ``crop`` (the default) scales images to cover the size and cuts off the rest; ``pad`` scales them into
                it, with black borders.
            channels: store such images in grey (``1``) or in colour (``3``); by default detected from the images.
            on_bad: ``skip`` omits images that cannot be read; the response's ``report`` names them.
            target: the label column of a table (default: the last one).
            types: types of columns of a table, instead of the detected ones: ``number``, ``category``, ``date`` or
                ``ignore``.
            split: the column of a table that contains the part of each row: ``train``, ``validation`` or
                ``test``.
            dry_run: store nothing; the result has what the files would be stored as, and ``plan``.
            spec: with ``dry_run``, a job on these data whose cost ``plan`` has.
            on_progress: called with the number of bytes before each piece of a file is sent.
            on_reading: called a few times a second, from another thread, with the fraction of the files (0 to 1) that
                the service has read.

        Raises:
            UnreadableImage: a folder has no images, or some that cannot be read, unless ``on_bad`` is ``skip``.
            OSError: a file cannot be read.
        """
        fields: dict[str, Any] = {"name": name, "validation_fraction": validation_fraction, "size": size, "fit": fit}
        fields |= {"channels": channels, "on_bad": on_bad}
        fields |= {"target": target, "split": split, "types": json.dumps(dict(types)) if types else None}
        fields |= {"spec": json.dumps(dict(spec)) if spec is not None else None}
        fields = {field: value for field, value in fields.items() if value is not None}
        unsent_bytes = 0

        def count(size: int) -> None:
            nonlocal unsent_bytes
            unsent_bytes -= size
            if on_progress is not None:
                on_progress(size)

        with ExitStack() as stack:
            files_by_field: dict[str, IO[bytes]] = {}
            packing_options = {"size": _parse_valid_size(size), "grey": channels == "1", "skips": on_bad == "skip"}
            packing_options |= {"pads": fit == "pad"}
            paths = _pack_folder(_paths_by_field(files), stack, packing_options)
            unsent_bytes = sum(path.stat().st_size for path in paths.values())
            for field, path in paths.items():
                files_by_field[field] = cast("IO[bytes]", _CountingFile(stack.enter_context(path.open("rb")), count))
            options: dict[str, Any] = {"data": fields, "files": files_by_field, "timeout": UPLOAD_TIMEOUT_S}
            options |= {"params": {"dry_run": "true"}} if dry_run else {}
            if on_reading is None:
                return self._send_upload(options)
            upload_id = str(uuid.uuid4())
            with self._watch_progress(upload_id, on_reading, is_sent=lambda: unsent_bytes <= 0):
                return self._send_upload(options | {"headers": {"Upload-Id": upload_id}})

    def _send_upload(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Send the request of an upload; returns the dataset that has the data, new or not."""
        try:
            return self._connection.json("POST", "/datasets", **options) | {"created": True}
        except ApiError as error:
            version = error.problem.get("version")
            if error.code != "dataset_exists" or version is None:
                raise
        return self.dataset(version) | {"created": False}

    def upload_progress(self, upload_id: str) -> dict[str, Any]:
        """The progress of an upload that was started with this ``Upload-Id``; ``absent`` if it has ended."""
        return self._connection.json("GET", f"/uploads/{segment(upload_id)}")

    @contextmanager
    def _watch_progress(
        self, upload_id: str, on_reading: Callable[[float], None], *, is_sent: Callable[[], bool]
    ) -> Iterator[None]:
        """Poll, once an upload is sent and until the block ends, how much of it the service has read."""
        is_over = threading.Event()

        def watch() -> None:
            while not is_over.wait(_WATCH_INTERVAL_S):
                if not is_sent():
                    continue
                try:
                    progress = self._connection.json("GET", f"/uploads/{segment(upload_id)}", attempts=1)
                except ClientError:  # the upload itself reports it
                    continue
                if progress["state"] == "reading" and not is_over.is_set():
                    on_reading(progress["fraction"])

        watcher = threading.Thread(target=watch, name="upload-progress", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            is_over.set()
            watcher.join()

    def publish_dataset(self, name: str, *, shared: bool = True) -> dict[str, Any]:
        """Let all owners use a dataset, or only its own one again; requires the scope ``admin``."""
        options = json_body({"shared": shared})
        return self._connection.json("PATCH", f"/datasets/{segment(name)}", repeatable=True, **options)

    def delete_dataset(self, name: str) -> None:
        """Delete an uploaded dataset that no unfinished job uses."""
        with self._connection.response("DELETE", f"/datasets/{segment(name)}"):
            pass


def _paths_by_field(files: Mapping[str, StrPath] | StrPath) -> dict[str, Path]:
    if isinstance(files, Mapping):
        return {field: Path(path) for field, path in files.items()}
    path = Path(files)
    return {"archive" if path.is_dir() else field_of(path): path}


def _parse_valid_size(text: str | None) -> Size | None:
    """The size that images of a folder are scaled to; ``None`` if there is none, or if it is invalid, which
    the service reports."""
    try:
        return None if text is None else parse_size(text)
    except ValueError:
        return None


def _pack_folder(paths: Mapping[str, Path], stack: ExitStack, options: Mapping[str, Any]) -> dict[str, Path]:
    """The paths, with a folder of images replaced by a temporary archive that is packed with these
    options."""
    result = dict(paths)
    if (folder := paths.get("archive")) is not None and folder.is_dir():
        temporary = Path(stack.enter_context(TemporaryDirectory(prefix="tapeline-upload-")))
        result["archive"] = temporary / "images.tar"
        pack(folder, result["archive"], **options)
    return result


class _CountingFile:
    """A file that reports the number of bytes read."""

    def __init__(self, file: IO[bytes], on_progress: Callable[[int], None]) -> None:
        self._file, self._on_progress = file, on_progress
        self.name = file.name

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._on_progress(len(data))
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
