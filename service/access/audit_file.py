"""An exported audit log: JSON lines with entries and seals in the order of ``audit_chain``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, fields
from typing import IO, Any, Final

from service.access.audit_chain import Entry, Item, Seal
from service.errors import AuditFileDamaged

FORMAT: Final = 1
_MAX_LINE: Final = 16 * 1024 * 1024
"""In characters; no entry comes close."""
_SEAL: Final = {field.name: str if field.name.endswith("digest") else int for field in fields(Seal)}


def write(items: Iterable[Item], file: IO[str]) -> tuple[int, int]:
    """Write a log, line by line: ``{"format": 1}``, then ``{"entry": …}`` and ``{"seal": …}``, then ``{"end": …}``.

    Returns:
        The numbers of entries and seals.
    """
    entries = seals = 0
    _write_line(file, {"format": FORMAT})
    for item in items:
        if isinstance(item, Entry):
            entries += 1
            _write_line(file, {"entry": item.columns})
        else:
            seals += 1
            _write_line(file, {"seal": asdict(item)})
    _write_line(file, {"end": {"entries": entries, "seals": seals}})
    return entries, seals


def read(file: IO[str]) -> Iterator[Item]:
    """The entries and seals of a file.

    Raises:
        AuditFileDamaged: a line is not in the format of ``write``, or the end line is missing.
    """
    lines = _lines(file)
    if next(lines, (0, {}))[1] != {"format": FORMAT}:
        raise AuditFileDamaged(
            1, f'it must be {{"format": {FORMAT}}}: this is not an audit log exported by this version'
        )
    number = 1
    entries = seals = 0
    for number, line in lines:
        match line:
            case {"entry": {"id": int(entry_id)} as columns, **rest} if not rest:
                entries += 1
                yield Entry(entry_id, columns)
            case {"seal": dict(columns), **rest} if not rest and _is_seal(columns):
                seals += 1
                yield Seal(**columns)
            case {"end": dict(counts)} if counts == {"entries": entries, "seals": seals}:
                if next(lines, None) is None:
                    return
                raise AuditFileDamaged(number + 1, "there is data after the end line")
            case _:
                raise AuditFileDamaged(number, "this is not an entry, a seal, or an end line with the right counts")
    raise AuditFileDamaged(number, "the file is truncated: its last line is missing")


def _lines(file: IO[str]) -> Iterator[tuple[int, Any]]:
    number = 0
    try:
        while line := file.readline(_MAX_LINE):
            number += 1
            yield number, json.loads(line, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise AuditFileDamaged(number, f"not JSON: {error}") from error


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):  # parsers differ in which of the values they use
        raise ValueError("a key is repeated")
    return document


def _is_seal(columns: Mapping[str, Any]) -> bool:
    def fits(name: str, kind: type) -> bool:
        value = columns[name]
        return type(value) is kind or (value is None and name == "removed_ms")

    return columns.keys() == _SEAL.keys() and all(fits(name, kind) for name, kind in _SEAL.items())


def _write_line(file: IO[str], document: Mapping[str, Any]) -> None:
    file.write(json.dumps(document, separators=(",", ":")) + "\n")
