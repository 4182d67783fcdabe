"""Operations of a client on datasets."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import IO, Any, Final, Unpack, cast

from tapeline.connection import UPLOAD_TIMEOUT_S, Connection, json_body, segment
from tapeline.errors import ApiError, ClientError
from tapeline.images.files import Size, parse_size
from tapeline.inputs.uploads import Given, packed
from tapeline.methods.upload_options import DeclaredOptions
from tapeline.notebook import cards

_WATCH_INTERVAL_S: Final = 0.25  # as often as the service records the progress


class UploadOptions(DeclaredOptions, total=False):
    """Options of an upload; see ``POST /datasets``."""

    on_progress: Callable[[int], None] | None
    """Called with the number of bytes before each piece of a file is sent."""
    on_reading: Callable[[float], None] | None
    """Called a few times a second, from another thread, with the fraction of the files (0 to 1) that the service has
    read."""


class Dataset(dict[str, Any]):
    """A dataset, as the document of the API; that of an upload also has ``created``."""

    def __init__(self, connection: Connection, document: Mapping[str, Any]) -> None:
        super().__init__(document)
        self._connection = connection

    @property
    def name(self) -> str:
        """Its name."""
        return str(self["name"])

    @property
    def reference(self) -> str:
        """The name by which a spec refers to exactly this data: the name, or ``name@digits`` of an older version."""
        version, versions = self.get("version"), self.get("versions")
        return self.name if not version or not versions or version == versions[0] else str(version)

    def examples(
        self, *, part: str = "train", label: int | None = None, limit: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """Iterate over the images, or the rows of a table, as ``Client.dataset_examples``."""
        resource = "rows" if self["kind"] == "table" else "examples"
        params = {"part": part} | ({} if label is None else {"class": str(label)})
        return self._connection.items(f"/datasets/{segment(self.reference)}/{resource}", params, limit=limit)

    def _repr_html_(self) -> str:
        has_content = self.get("state") == "ready"  # not after a dry run
        shown = list(self.examples(limit=5 if self["kind"] == "table" else 12)) if has_content else []
        return cards.dataset(self, shown, self._target() if has_content else [])

    def __repr__(self) -> str:
        classes = [f"{len(names)} classes"] if (names := self.get("class_names")) else []
        facts = cards.content(self) if {"kind", "columns"} <= self.keys() else [self.get("state", "not read yet")]
        return f"<Dataset {self.get('name')!r}: {', '.join([*facts, *classes, *self._target_name()])}>"

    def _target(self) -> list[dict[str, Any]]:
        """Statistics of the column that a regression predicts."""
        if self.get("task") != "regression":
            return []
        path = f"/datasets/{segment(self.reference)}/columns"
        columns = self._connection.json("GET", path)["columns"]
        return [column for column in columns if column["name"] == self["target"]]

    def _target_name(self) -> list[str]:
        return [f"target {self['target']}"] if self.get("target") else []


class DatasetOperations:
    """The methods of ``Client`` for datasets."""

    _connection: Connection

    def dataset(self, name: str) -> Dataset:
        """A dataset, with the number of examples of each class as ``class_counts``."""
        return Dataset(self._connection, self._connection.json("GET", f"/datasets/{segment(name)}"))

    def dataset_examples(
        self, name: str, *, part: str = "train", label: int | None = None, limit: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """Iterate over the images of a dataset, or the rows of a table; pages are fetched as needed.

        Args:
            part: ``train``, ``validation`` or ``test``.
            label: index of a class: only its examples.
            limit: maximum number of examples.
        """
        yield from self.dataset(name).examples(part=part, label=label, limit=limit)

    def dataset_rows(
        self, name: str, *, part: str = "train", label: int | None = None, limit: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """Iterate over the rows of a table; see ``dataset_examples``."""
        return Dataset(self._connection, {"name": name, "kind": "table"}).examples(part=part, label=label, limit=limit)

    def upload(
        self,
        name: str,
        files: Given,
        *,
        dry_run: bool = False,
        spec: Mapping[str, Any] | None = None,
        **options: Unpack[UploadOptions],
    ) -> Dataset:
        """Upload a dataset; returns it, with ``created``: whether it was stored now.

        If the service has exactly this data under this name already, nothing is stored: ``created`` is false and the
        document is that of the existing version. That may be an older one; ``reference`` names it in specs.

        Args:
            files: a path: a folder with a folder of image files for each class, an archive, or a table (CSV or TSV); or
                several paths, or form fields and paths: ``table``, ``archive``, or ``images`` and ``labels``,
                optionally with ``validation_images`` and ``validation_labels``. Files are streamed.
            dry_run: store nothing; the result has what the files would be stored as, and ``plan``.
            spec: with ``dry_run``, a job on these data whose cost ``plan`` has.
            options: see ``UploadOptions``.

        Raises:
            TypeError: ``spec`` is given without ``dry_run``.
            NotUploadable: a dataset cannot be made from these files.
            UnreadableImage: a folder has no images, or some that cannot be read, unless ``on_bad`` is ``skip``.
            OSError: a file cannot be read.
        """
        if spec is not None and not dry_run:
            raise TypeError("upload(): spec is for dry_run=True; after an upload, submit(spec) starts the job")
        on_progress, on_reading = options.pop("on_progress", None), options.pop("on_reading", None)
        given: dict[str, Any] = {"name": name, **options, "spec": spec}
        fields = {
            field: json.dumps(dict(value)) if isinstance(value, Mapping) else value
            for field, value in given.items()
            if value is not None and (value != {} or field == "spec")
        }
        unsent_bytes = 0

        def count(size: int) -> None:
            nonlocal unsent_bytes
            unsent_bytes -= size
            if on_progress is not None:
                on_progress(size)

        with ExitStack() as stack:
            files_by_field: dict[str, IO[bytes]] = {}
            content = stack.enter_context(packed(files, **packing_options(options)))
            unsent_bytes = sum(path.stat().st_size for path in content.paths.values())
            for field, path in content.paths.items():
                files_by_field[field] = cast("IO[bytes]", _CountingFile(stack.enter_context(path.open("rb")), count))
            request: dict[str, Any] = {"data": fields, "files": files_by_field, "timeout": UPLOAD_TIMEOUT_S}
            request |= {"params": {"dry_run": "true"}} if dry_run else {}
            if on_reading is not None:
                upload_id = str(uuid.uuid4())
                stack.enter_context(self._watch_progress(upload_id, on_reading, is_sent=lambda: unsent_bytes <= 0))
                request["headers"] = {"Upload-Id": upload_id}
            return Dataset(self._connection, {"name": name, "created": not dry_run, **self._send_upload(request)})

    def _send_upload(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Send the request of an upload; returns the dataset that has the data, new or not."""
        try:
            return self._connection.json("POST", "/datasets", **options)
        except ApiError as error:
            version = error.problem.get("version")
            if error.code != "dataset_exists" or version is None:
                raise
        return self.dataset(version) | {"created": False}

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


def packing_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """How ``pack`` prepares the images of a folder, given the options of an upload."""
    return {
        "size": _parse_valid_size(options.get("size")),
        "grey": options.get("channels") == "1",
        "pads": options.get("fit") == "pad",
        "skips": options.get("on_bad") == "skip",
    }


def _parse_valid_size(text: str | None) -> Size | None:
    """The size that images of a folder are scaled to; ``None`` if there is none, or if it is invalid, which
    the service reports."""
    try:
        return None if text is None else parse_size(text)
    except ValueError:
        return None


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
