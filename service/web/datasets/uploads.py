"""The form of an upload. Files are streamed to disk: memory use does not depend on their size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Annotated, Any, Final, TypeVar, cast

from flask import request
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
    create_model,
)
from pydantic_core import ErrorDetails
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import FormDataParser

from service.application.datasets import ReceivedFiles
from service.datasets.formats.options import (
    UPLOAD_OPTIONS,
    PartOptions,
    PhotoOptions,
    TableOptions,
    UploadOption,
    options_of,
)
from service.datasets.importer import UploadRefused
from service.datasets.info import DATASET_NAME, ImportedDataset, OnProgress
from service.datasets.sandbox import FIELDS, FORMATS, import_in_sandbox
from service.datasets.tables.detection import ColumnType
from service.schema.base import with_fields_of
from service.spec.strict_json import parse_json
from service.web.http import request_limits, slots
from service.web.http.problems import Problem
from service.web.http.requests import MAX_UPLOAD_BYTES, UploadedBody
from tapeline.images.files import Size, parse_size

T = TypeVar("T")

_MAX_PARTS: Final = 16
_MAX_TEXT_BYTES: Final = 256 * 1024
"""Maximum size of a field that is not a file; also the parser's buffer, which must be at least 64 KiB."""

_File = Annotated[Path | None, WithJsonSchema({"type": "string", "format": "binary"})]


def _check_size(text: str) -> str:
    parse_size(text)
    return text


def _parse_json(text: Any) -> Any:
    return parse_json(text.encode()) if isinstance(text, str) else text


_TYPES: Final[Mapping[Any, Any]] = {
    Size: Annotated[str, StringConstraints(max_length=20), AfterValidator(_check_size)],
    str: Annotated[str, StringConstraints(max_length=1000)],
    float: Annotated[float, Field(gt=0, lt=1)],
    Mapping: Annotated[dict[str, ColumnType], BeforeValidator(_parse_json)],
}
"""The type of a field, by that of the option."""


def _fields(group: type[Any]) -> type[BaseModel]:
    """The fields of the options of a group."""
    found: dict[str, Any] = {}
    for option in options_of(group):
        kind = _TYPES.get(option.kind, option.kind)
        kind = kind if option.default is not None else kind | None
        found[option.name] = (kind, Field(option.default, description=option.declared.meaning))
    return create_model(group.__name__, **found)


class _Name(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: Annotated[str, StringConstraints(pattern=f"^{DATASET_NAME.pattern}$")] = Field(
        description="The dataset's name in specs: 1 to 64 ASCII letters, digits, dots, dashes and underscores."
    )


class _Files(BaseModel):
    archive: _File = Field(
        None,
        description="A zip or tar file (also gzipped) of PNG, JPEG, WebP, BMP or GIF files with a folder for each "
        "class, optionally under `train/`, `validation/` (or `val/`) and `test/`; folder names become class names. "
        "Without a validation folder, `test/` is used for validation; otherwise training never sees it. "
        "Or an NPZ file with the arrays `images` and `labels`, and optionally `validation_images` and "
        "`validation_labels`; names such as `x_train` and `y_test` are accepted. Images have the shape (count, rows, "
        "columns) or (count, rows, columns, 3) and are integers from 0 to 255, or floats in [0, 1]. "
        "Labels are integers from 0 to 255.",
    )
    images: _File = Field(None, description="IDX file with the shape (count, rows, columns).")
    labels: _File = Field(None, description="IDX file with the shape (count).")
    validation_images: _File = None
    validation_labels: _File = None
    table: _File = Field(
        None,
        description="A CSV or TSV file, plain or gzipped, with the names of the columns in its first line. Delimiter, "
        "encoding and the types of the columns are detected. Empty fields, `NA`, `N/A`, `NaN`, `null`, `?`, `-`, `--`, "
        "`.` and `k.A.` are missing values.",
    )


@with_fields_of(_Name, _fields(PartOptions), _fields(PhotoOptions), _Files, _fields(TableOptions))
class UploadForm(_Name):
    """A dataset: a table, an archive of image files, one NPZ archive, or IDX files, plain or gzipped."""

    spec: Annotated[dict[str, Any], BeforeValidator(_parse_json)] | None = Field(
        None,
        description="With `dry_run`: the spec of a job, as JSON, whose cost on these data is estimated. It may lack "
        "`kind` and the name of the dataset.",
    )

    def received(self) -> ReceivedFiles:
        """The files that were sent, by field, with the options of their formats."""
        return ReceivedFiles(
            name=self.name,
            files={field: path for field in FIELDS if (path := getattr(self, field)) is not None},
            fraction=self._options(PartOptions).validation_fraction,
            photos=self._options(PhotoOptions),
            table=self._options(TableOptions),
            spec=None if self.spec is None else self.spec | {"dataset": self._data()},
        )

    def _options(self, group: type[T]) -> T:
        given = [(option, value) for option in options_of(group) if (value := getattr(self, option.name)) is not None]
        return group(**{option.name: parse_size(value) if option.kind is Size else value for option, value in given})

    def _data(self) -> Any:
        """The dataset of ``spec``, which is this one."""
        data = (self.spec or {}).get("dataset", {})
        data = {"name": data} if isinstance(data, str) else data
        if not isinstance(data, dict):  # the check of the spec reports it
            return data
        if (other := data.get("name", self.name)) != self.name:
            raise UploadRefused(
                {"spec": f"is of the dataset {other!r}; the upload is {self.name!r}: leave its name out"}
            )
        return data | {"name": self.name}


def import_files(
    files: Mapping[str, Path],
    folder: Path,
    *,
    fraction: float | None,
    photos: PhotoOptions,
    table: TableOptions | None = None,
    on_progress: OnProgress = lambda done: None,
) -> ImportedDataset:
    """Import an upload in a sandbox, with limited concurrency."""
    with slots.hold(slots.IMPORTS):
        return import_in_sandbox(files, folder, fraction=fraction, photos=photos, table=table, on_progress=on_progress)


def receive(
    folder: Path,
    *,
    count: Callable[[int], None],
    on_received: Callable[[int], None],
    dry_run: bool = False,
    max_bytes: int = MAX_UPLOAD_BYTES,
) -> ReceivedFiles:
    """Receive the request's form; its files are written to ``folder`` under generated names.

    Args:
        count: called with the number of received bytes, also after a failure.
        on_received: called with the number of bytes of each piece.

    Raises:
        Problem: the body is not a form, or it is too large or too slow.
        UploadRefused: fields are missing, unknown, repeated or not valid.
        OSError: ``folder`` cannot be written.
    """
    if request.mimetype != "multipart/form-data":
        shown = repr(request.mimetype[:100]) if request.mimetype else "missing"
        raise Problem("unsupported_media_type", f"the content type must be multipart/form-data; it is {shown}")
    request_body = UploadedBody(max_bytes, on_received)
    opened_files: list[IO[bytes]] = []

    def new_file(
        total_content_length: int | None,
        content_type: str | None,
        filename: str | None,
        content_length: int | None = None,
    ) -> IO[bytes]:
        opened_files.append((folder / f"part-{len(opened_files)}").open("xb"))
        return opened_files[-1]

    parser = FormDataParser(new_file, max_form_memory_size=_MAX_TEXT_BYTES, max_form_parts=_MAX_PARTS, silent=False)
    try:
        stream = cast("IO[bytes]", request_body)
        _, texts, files = parser.parse(stream, request.mimetype, request.content_length, request.mimetype_params)
    except RequestEntityTooLarge as error:
        detail = f"an upload has at most {max_bytes:,} bytes, {_MAX_PARTS} fields and {_MAX_TEXT_BYTES:,} bytes of text"
        raise Problem("body_too_large", detail) from error
    except (ValueError, UnicodeError) as error:
        raise Problem("malformed_form", f"the form cannot be read ({str(error)[:200]})") from error
    finally:
        request_limits.end()
        count(request_body.received)
        for opened_file in opened_files:
            opened_file.close()
    fields: dict[str, Any] = {}
    faults: dict[str, str] = {}
    for name, value in texts.items(multi=True):
        _add_field(fields, faults, name, value)
    for name, file in files.items(multi=True):
        path = Path(file.stream.name)
        if file.filename or path.stat().st_size:  # browsers also send empty file fields
            _add_field(fields, faults, name, path)
    if "spec" in fields and not dry_run:
        faults["spec"] = "is of a dry run, which estimates the cost of a job; submit the job after the upload"
    return _validate(fields, faults)


def _add_field(fields: dict[str, Any], faults: dict[str, str], name: str, value: str | Path) -> None:
    if name in fields:
        faults[name[:80]] = "duplicate field"
    elif name in FIELDS and not isinstance(value, Path):
        faults[name] = "expected a file upload"
    elif name not in FIELDS and isinstance(value, Path):
        faults[name[:80]] = f"is a file; those that may be sent are {', '.join(FIELDS)}"
    elif value != "" or name == "name":
        fields[name] = value


def _validate(fields: Mapping[str, Any], faults: dict[str, str]) -> ReceivedFiles:
    try:
        received = UploadForm.model_validate(fields).received()
    except ValidationError as error:
        for item in error.errors():
            name = str(item["loc"][0])
            match item["type"]:
                case "extra_forbidden":
                    detail = f"is unknown; allowed: {', '.join(UploadForm.model_fields)}"
                case "missing":
                    detail = "is missing"
                case "string_pattern_mismatch":
                    detail = (
                        "must be 1 to 64 ASCII letters, digits, dots, dashes and underscores, a letter or digit first"
                    )
                case _ if name == "spec":
                    detail = "must be a JSON object"
                case _:
                    detail = _fault(_OPTIONS[name], item)
            faults.setdefault(name[:80], detail)
    if faults:
        raise UploadRefused(faults)
    if not received.files:
        labels = ", ".join(entry.label for entry in FORMATS)
        raise UploadRefused({"archive": f"is missing: send a file; these are read: {labels}"})
    return received


_OPTIONS: Final = {option.name: option for option in UPLOAD_OPTIONS}


def _fault(option: UploadOption, item: ErrorDetails) -> str:
    """What is wrong with the value of an option."""
    if option.kind is Mapping:
        allowed = ", ".join(ColumnType)
        if item["type"] == "enum":
            column, type_name = str(item["loc"][1])[:40], str(item["input"])[:40]
            return f"{column!r} cannot have the type {type_name!r}; types are {allowed}"
        return f'must be a JSON object such as {{"age": "number"}}; types are {allowed}'
    if option.kind is str:
        return "must be the name of a column"
    if option.is_choice:
        return f"must be {item['ctx']['expected']}"
    if option.kind is Size:
        return f"must be a width such as 32, or width and height such as 32x24: {item['msg']}"
    return f"must be a number between 0 and 1: {item['msg']}"
