"""JSON documents: strict parsing (RFC 8259), canonical text, changes; settings by JSON pointer (RFC 6901) or dotted."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from service.errors import MalformedJson

MAX_DEPTH: Final = 32
MAX_NAMES: Final = 10_000
"""Maximum number of fields of all objects of a document together; the largest spec has a few hundred."""
_MAX_SHOWN_NAME: Final = 80


def parse_json(body: bytes) -> Any:
    """Parse JSON strictly as RFC 8259: no NaN, no repeated keys, no number beyond the range of a float.

    Raises:
        MalformedJson: has the line and the column, counted from 1.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        prefix = body[: error.start].decode("utf-8", "replace")
        raise MalformedJson("the body is not UTF-8", *_position(prefix, len(prefix))) from error

    def refuse(detail: str, literal: str) -> MalformedJson:
        return MalformedJson(detail, *_position(text, max(text.find(literal), 0)))

    def parse_number(literal: str) -> float:
        value = float(literal)
        if not math.isfinite(value):
            raise refuse(f"{literal} is too large for a number", literal)
        return value

    def reject_constant(literal: str) -> float:
        raise refuse(f"{literal} is not JSON; leave the field out or use null", literal)

    def parse_integer(literal: str) -> int:
        if len(literal) > 20:
            raise refuse("an integer has more than 20 digits", literal)
        return int(literal)

    remaining_names = MAX_NAMES

    def unique_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal remaining_names
        remaining_names -= len(pairs)
        if remaining_names < 0:
            raise MalformedJson(f"the document has more than {MAX_NAMES:,} fields", 1, 1)
        document: dict[str, Any] = {}
        for name, value in pairs:
            if name in document:
                shown_name = name if len(name) <= _MAX_SHOWN_NAME else f"{name[:_MAX_SHOWN_NAME]}…"
                raise refuse(f"the key {shown_name!r} appears twice in one object", json.dumps(name))
            document[name] = value
        return document

    try:
        document = json.loads(
            text,
            parse_float=parse_number,
            parse_constant=reject_constant,
            parse_int=parse_integer,
            object_pairs_hook=unique_object,
        )
    except json.JSONDecodeError as error:
        raise MalformedJson(f"not valid JSON: {error.msg}", error.lineno, error.colno) from error
    except RecursionError as error:
        raise MalformedJson(f"nested more than {MAX_DEPTH} deep", 1, 1) from error
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise refuse("a string contains an unpaired surrogate", "\\ud") from error
    if _depth(document) > MAX_DEPTH:
        raise MalformedJson(f"nested more than {MAX_DEPTH} deep", 1, 1)
    return document


def canonical(document: Any) -> str:
    """The canonical JSON text of a document: sorted keys, no blanks. Equal documents have equal texts."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _position(text: str, offset: int) -> tuple[int, int]:
    line = text.count("\n", 0, offset) + 1
    return line, offset - (text.rfind("\n", 0, offset) + 1) + 1


def _depth(document: Any) -> int:
    depth, level = 0, [document]
    while level:
        depth += 1
        children: list[Any] = []
        for item in level:
            children.extend(item.values() if isinstance(item, dict) else item if isinstance(item, list) else ())
        level = children
    return depth - 1


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All values of a document except objects and lists of these, with their paths."""
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list) and any(isinstance(item, Mapping | list) for item in value):
        items = enumerate(value)
    else:
        yield path, value
    for name, item in items:
        yield from leaves(item, (*path, str(name)))


def pointers(document: Any) -> list[str]:
    """The JSON pointers to the ``leaves`` of a document."""
    return ["".join("/" + pointer_step(name) for name in path) for path, _ in leaves(document)]


def pointer_step(name: object) -> str:
    """A name as a step of a JSON pointer."""
    return str(name).replace("~", "~0").replace("/", "~1")


def pointer_name(step: str) -> str:
    """The name that a step of a JSON pointer refers to."""
    return step.replace("~1", "/").replace("~0", "~")


def pointer_of(setting: str) -> str:
    """The JSON pointer to a setting in either notation."""
    return setting if setting.startswith("/") else "".join("/" + pointer_step(name) for name in setting.split("."))


def overlay(document: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The document with changes, object by object. An object that names another variant replaces the whole object,
    because Adam's options are not options of SGD; one for a field that is a name keeps that name."""
    merged = dict(document)
    for name, value in changes.items():
        current = document.get(name)
        if isinstance(current, str) and isinstance(value, dict):
            current = {"name": current}
        if isinstance(value, dict) and isinstance(current, dict):
            is_other_variant = name != "dataset" and "name" in value and value["name"] != current.get("name")
            merged[name] = value if is_other_variant else overlay(current, value)
        else:
            merged[name] = value
    return merged
