"""What ``predict`` is given, as bodies of requests: images or rows, in the forms that Python programs have them in."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tapeline.errors import ApiError
from tapeline.inputs.images import encoded, in_requests, upright_png
from tapeline.inputs.uploads import files_of
from tapeline.inputs.values import as_rows

_MAX_ROWS: Final = 1_000
_MAX_CHARACTERS: Final = 900_000
"""Of the rows of a request, whose body is limited to 1 MiB."""

Shape = tuple[int, ...]


def bodies(items: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """The ``images`` or ``rows`` of as few requests as possible, at least one."""
    if items and isinstance(items[0], Mapping):
        yield from ({"rows": batch} for batch in _batches(as_rows(items)))
    else:
        yield from ({"images": batch} for batch in in_requests([encoded(_sent(item)) for item in items]))


def shown_of(items: Sequence[Any]) -> list[dict[str, Any]]:
    """What tells the items apart in a display: the cells of a row, the name of a file."""
    if items and isinstance(items[0], Mapping):
        return as_rows(items)
    return [{"file": name} if (name := _file_name(item)) else {} for item in items]


def _file_name(image: Any) -> str:
    path = getattr(image, "filename", None) if _is_pillow(image) else image
    return Path(path).name if isinstance(path, str | os.PathLike) and os.path.isfile(path) else ""


def items_of(data: Any, dataset: Callable[[], Mapping[str, Any]]) -> list[Any]:
    """A list of images, or of rows as mappings.

    Args:
        data: a frame or series of pandas, a mapping, an image, or several of them; also positional rows.
        dataset: the dataset of the job, which tells the columns of positional rows, and images from lists of them.
    """
    if hasattr(data, "to_dict"):  # pandas
        return list(data.to_dict("records")) if hasattr(data, "columns") else [data.to_dict()]
    if data is None:
        return []
    if isinstance(data, str | os.PathLike) and os.path.isdir(data):
        return list(files_of(Path(data))[0])
    if isinstance(data, Mapping | str | bytes | os.PathLike) or _is_pillow(data):
        return [data]
    items = [item.to_dict() if hasattr(item, "to_dict") else item for item in data]
    if items and all(map(_is_cell, items)):  # texts are images, unless the model has columns
        if all(isinstance(item, str) for item in items) and (_any_file(items) or dataset()["kind"] != "table"):
            return items
        data = items = [items]  # a single row without names, or an image in one list
    if not items or not _is_flat(items[0]):
        return [data] if _is_one_image(data, dataset) else items
    described = dataset()
    if described["kind"] == "table":
        return [_named(item, [column["name"] for column in described["columns"]]) for item in items]
    pixels = math.prod(described["image_shape"][:2])
    return items if len(items[0]) in (pixels, 3 * pixels) and described["image_shape"] else [data]


def _any_file(texts: Iterable[str]) -> bool:
    return any(map(os.path.isfile, texts))


def _is_one_image(data: Any, dataset: Callable[[], Mapping[str, Any]]) -> bool:
    """Whether an array of three axes is an image with channels instead of several images in grey.

    Raises:
        ValueError: its first axis seems to be that of the colours.
    """
    shape = _shape(data)
    if len(shape) != 3 or shape[2] == 3:
        return len(shape) == 3
    may_begin_with_colours = shape[0] == 3 and hasattr(data, "shape")
    if shape[2] not in (1, 4) and not may_begin_with_colours:
        return False
    expected = tuple(dataset()["image_shape"])
    has_channels = shape[2] in (1, 4) and shape[1:] != expected[:2]
    if may_begin_with_colours and not has_channels and len(expected) == 3:
        raise ValueError(
            f"an array of shape {shape} is one image with the colours first, or three in grey: for one image give "
            "array.transpose(1, 2, 0), for three list(array)"
        )
    return has_channels


def _named(row: Sequence[Any], names: Sequence[str]) -> dict[str, Any]:
    if len(row) != len(names):
        raise ValueError(f"a row has {len(row)} values, and the model {len(names)} columns: {', '.join(names)}")
    return dict(zip(names, row, strict=True))


def _sent(image: Any) -> Any:
    """An image of Pillow as the bytes of a PNG; an array of bytes as numbers in [0, 1]; one channel as grey, and four
    as colours before a black background."""
    if _is_pillow(image):
        return upright_png(image)
    if getattr(getattr(image, "dtype", None), "kind", "") == "u":
        image = image / 255
    channels = shape[2] if len(shape := _shape(image)) == 3 else 0
    if channels not in (1, 4):
        return image
    rows = image.tolist() if hasattr(image, "tolist") else image
    if channels == 1:
        return [[pixel[0] for pixel in row] for row in rows]
    return [[[level * pixel[3] for level in pixel[:3]] for pixel in row] for row in rows]


def _is_pillow(value: Any) -> bool:
    return hasattr(value, "save") and hasattr(value, "mode")


def _is_cell(value: Any) -> bool:
    """Whether a value may be a cell of a table or a pixel: neither a list, an image, nor the path of a file."""
    if isinstance(value, Mapping | os.PathLike) or _is_pillow(value) or getattr(value, "shape", None):
        return False
    return isinstance(value, str) or not isinstance(value, Sequence)


def _is_flat(item: Any) -> bool:
    """Whether an item is a list of plain values, and not of lists."""
    if hasattr(item, "shape"):
        return len(item.shape) == 1
    return isinstance(item, Sequence) and not isinstance(item, str | bytes) and all(map(_is_cell, item))


def _shape(data: Any) -> Shape:
    """The shape of an array, or of lists of lists."""
    if hasattr(data, "shape"):
        return tuple(data.shape)
    return (len(data), *_shape(data[0])) if isinstance(data, list | tuple) and data else ()


def _batches(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    characters = 0
    for row in rows:
        length = len(json.dumps(row))
        if batch and (len(batch) == _MAX_ROWS or characters + length > _MAX_CHARACTERS):
            yield batch
            batch, characters = [], 0
        batch.append(row)
        characters += length
    yield batch


def without_columns(body: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """A body whose rows lack these columns."""
    if not names:
        return dict(body)
    rows = [{name: value for name, value in row.items() if name not in names} for row in body["rows"]]
    return {**body, "rows": rows}


def unknown_columns(error: ApiError, rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The columns of rows that the model does not have, each with a text.

    Empty if there are other faults, or if a column seems to be misspelt: then a row lacks the suggested one.
    """
    found = dict[str, str]()
    for fault in error.errors:
        place = re.fullmatch(r"#/rows/(\d+)/(.*)", str(fault.get("pointer")), re.DOTALL)
        if place is None or fault.get("code") != "unknown_field":
            return {}
        name = place[2].replace("~1", "/").replace("~0", "~")
        suggestion = fault.get("suggestion")
        if suggestion and suggestion not in rows[int(place[1])]:
            return {}
        found[name] = f"{name!r} (did you mean {suggestion!r}?)" if suggestion else repr(name)
    return found


def joined(documents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The responses to several requests as one."""
    first = dict(documents[0])
    if len(documents) == 1:
        return first
    for name, value in first.items():
        if isinstance(value, list) and name not in ("class_names", "unknown_values"):
            first[name] = [item for document in documents for item in document[name]]
    if first.get("unknown_values") is not None:
        first["unknown_values"], offset = [], 0
        for document in documents:
            first["unknown_values"] += [item | {"row": item["row"] + offset} for item in document["unknown_values"]]
            offset += len(document.get("classes") or document.get("predictions") or ())
        absent: dict[str, int] = {}
        for document in documents:
            for column, count in document["absent_columns"].items():
                absent[column] = absent.get(column, 0) + count
        first["absent_columns"] = absent
    return first
