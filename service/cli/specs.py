"""Specs from the arguments of a command: settings such as ``optimizer.learning_rate=0.01``, alone or on a document."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from service.errors import MalformedJson
from service.spec.strict_json import overlay, parse_json
from tapeline.inputs.data_files import is_table

STDIN = Path("-")


def is_spec(path: Path) -> bool:
    """Whether an argument is a spec, and not data: standard input, a pipe, or a file with a JSON object."""
    if path == STDIN or not (path.is_dir() or path.is_file()):
        return True
    if is_table(path):
        return False
    if path.is_dir() or path.suffix.lower() == ".json":
        return path.is_file()
    with path.open("rb") as file:
        return file.read(64).lstrip().startswith(b"{")


def read(path: Path) -> bytes:
    """The text of a spec.

    Raises:
        click.UsageError: the file does not exist.
    """
    if path == STDIN:
        return sys.stdin.buffer.read()
    if not path.exists():
        dataset = f"; for a dataset of the service, use --dataset {path}" if not path.suffix else ""
        raise click.UsageError(f"{path} does not exist{dataset}")
    return path.read_bytes()


def settings_of(values: Sequence[str], options: Mapping[str, tuple[str, Any]] | None = None) -> dict[str, Any]:
    """Parse ``a.b=1`` to ``{"a": {"b": 1}}``; a value that is not JSON is a string.

    Args:
        values: the values of ``--set``.
        options: other options, each with its field and value; the value is ``None`` if the option is not
            given.

    Raises:
        click.UsageError: a value is not ``FIELD=VALUE``, or an option and ``--set`` are for the same field.
    """
    settings: dict[str, Any] = {}
    for text in values:
        field, equals, value = text.partition("=")
        if not equals or not all(field.split(".")):
            raise click.UsageError(f"--set expects FIELD=VALUE, for example epochs=9; got {text!r}")
        *path, leaf = field.split(".")
        node = settings
        for name in path:
            node = node.setdefault(name, {})
            if not isinstance(node, dict):
                raise click.UsageError(f"--set {text!r}: {name} already has a value")
        try:
            node[leaf] = parse_json(value.encode())
        except MalformedJson:
            node[leaf] = value
    for option, (field, value) in (options or {}).items():
        if value is None:
            continue
        node = settings
        *path, leaf = field.split(".")
        for name in path:
            node = node.setdefault(name, {}) if isinstance(node, dict) else node
        if not isinstance(node, dict) or leaf in node:
            raise click.UsageError(f"{option} and --set are both given for {field}: omit one")
        node[leaf] = value
    return settings


def with_settings(document: bytes, settings: Mapping[str, Any]) -> bytes:
    """The spec with other settings; an invalid document is returned unchanged, for the service to reject."""
    if not settings:
        return document
    try:
        spec = parse_json(document)
    except MalformedJson:
        return document
    return json.dumps(overlay(spec, settings)).encode() if isinstance(spec, dict) else document


def with_folds(document: bytes, folds: int | None) -> bytes:
    """The spec with ``dataset.folds``; an invalid document is returned unchanged, for the service to reject."""
    if folds is None:
        return document
    try:
        spec = parse_json(document)
    except MalformedJson:
        return document
    is_valid = isinstance(spec, dict) and isinstance(spec.get("dataset", ""), str | dict)
    return with_settings(document, {"dataset": {"folds": folds}}) if is_valid else document
