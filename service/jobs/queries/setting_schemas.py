"""The settings that a spec can have: their names, and their JSON schemas by path."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from service.spec.fields import spec_fields
from service.spec.schema import SPEC_MODELS


def is_index(segment: str) -> bool:
    """Whether a part of a path is an index into a list."""
    return segment.isascii() and segment.isdigit() and len(segment) < 5


@functools.lru_cache(maxsize=1)
def _spec_schemas() -> tuple[dict[str, Any], ...]:
    return tuple(model.model_json_schema() for model in SPEC_MODELS.values())


@functools.lru_cache(maxsize=1000)
def schemas_at(segments: tuple[str, ...]) -> tuple[dict[str, Any], ...]:
    """The schemas of a setting, one for each variant; empty if no spec can have it."""
    schemas: list[dict[str, Any]] = []
    for spec in _spec_schemas():
        level = [spec]
        for segment in segments:
            level = [step for schema in level for step in _step(schema, segment, spec)]
        schemas += level
    return tuple(schemas)


def _step(schema: dict[str, Any], segment: str, root: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for variant in _variants(schema, root):
        if segment in variant.get("properties", {}):
            yield from _variants(variant["properties"][segment], root)
        elif isinstance(variant.get("items"), dict) and is_index(segment):
            yield from _variants(variant["items"], root)


def _variants(schema: dict[str, Any], root: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The alternatives of a schema, with references resolved."""
    if "$ref" in schema:
        target = root["$defs"][schema["$ref"].rpartition("/")[2]]
        metadata = {"description": schema["description"]} if "description" in schema else {}
        yield from _variants(target | metadata, root)
        return
    options = schema.get("anyOf", schema.get("oneOf"))
    if options is None:
        yield schema
        return
    for option in options:
        metadata = {"description": schema["description"]} if "description" in schema else {}
        yield from _variants(metadata | option, root)


def types_of(schema: dict[str, Any]) -> set[str]:
    """The JSON types that a value can have."""
    if "const" in schema:
        return {"string" if isinstance(schema["const"], str) else "number"}
    types = schema.get("type", "string" if "enum" in schema else "object")
    return {types} if isinstance(types, str) else set(types)


@functools.lru_cache(maxsize=1)
def setting_names() -> tuple[str, ...]:
    """The names of all settings; for lists, only those of the first item."""
    fields = [field for spec in SPEC_MODELS.values() for field in spec_fields(spec, {})]
    return tuple(dict.fromkeys(field.dotted.replace("[]", ".0") for field in fields))
