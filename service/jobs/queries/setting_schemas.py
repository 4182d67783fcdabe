"""The settings that a spec can have: their names, and their JSON schemas by path."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from service.spec.schema import ClassifierSpec, GanSpec


def is_index(part: str) -> bool:
    """Whether a part of a path is the place of an item in a list."""
    return part.isascii() and part.isdigit() and len(part) < 5


@functools.lru_cache(maxsize=1)
def _specs() -> tuple[dict[str, Any], ...]:
    return tuple(model.model_json_schema() for model in (ClassifierSpec, GanSpec))


@functools.lru_cache(maxsize=1000)
def schemas_at(parts: tuple[str, ...]) -> tuple[dict[str, Any], ...]:
    """The schemas of a setting: one for each variant; none if no spec can have it."""
    found: list[dict[str, Any]] = []
    for spec in _specs():
        level = [spec]
        for part in parts:
            level = [step for schema in level for step in _step(schema, part, spec)]
        found += level
    return tuple(found)


def _step(schema: dict[str, Any], part: str, root: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for variant in _variants(schema, root):
        if part in variant.get("properties", {}):
            yield from _variants(variant["properties"][part], root)
        elif isinstance(variant.get("items"), dict) and is_index(part):
            yield from _variants(variant["items"], root)


def _variants(schema: dict[str, Any], root: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The alternatives of a schema, with references resolved."""
    if "$ref" in schema:
        target = root["$defs"][schema["$ref"].rpartition("/")[2]]
        about = {"description": schema["description"]} if "description" in schema else {}
        yield from _variants(target | about, root)
        return
    options = schema.get("anyOf", schema.get("oneOf"))
    if options is None:
        yield schema
        return
    for option in options:
        about = {"description": schema["description"]} if "description" in schema else {}
        yield from _variants(about | option, root)


def types_of(schema: dict[str, Any]) -> set[str]:
    """The types of JSON that a value may have."""
    if "const" in schema:
        return {"string" if isinstance(schema["const"], str) else "number"}
    found = schema.get("type", "string" if "enum" in schema else "object")
    return {found} if isinstance(found, str) else set(found)


@functools.lru_cache(maxsize=1)
def setting_names() -> tuple[str, ...]:
    """The names of all settings; of lists, only those of the first item."""
    names: dict[str, None] = {}
    for spec in _specs():
        for path in _paths(spec, spec):
            names[path] = None
    return tuple(names)


def _paths(schema: dict[str, Any], root: dict[str, Any], path: str = "") -> Iterator[str]:
    if path:
        yield path
    for variant in _variants(schema, root):
        for name, field in variant.get("properties", {}).items():
            yield from _paths(field, root, f"{path}.{name}" if path else name)
        if isinstance(variant.get("items"), dict) and variant["items"].get("type") not in (
            "integer",
            "number",
            "string",
        ):
            yield from _paths(variant["items"], root, f"{path}.0")
