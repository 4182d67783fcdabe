"""Writes what follows from the options of an upload: arguments of the client, and the table in docs/spec.md."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from pathlib import Path

from service.datasets.formats.options import UPLOAD_OPTIONS, UploadOption

DOCUMENT = Path(__file__).parents[4] / "docs" / "spec.md"
_TABLE = re.compile(r"(?<=\| option \| effect \|\n\|---\|---\|\n)(\|.*\n)+")


def module(note: str) -> str:
    """The module of the client with the arguments of ``upload``, before it is formatted."""
    fields = "\n".join(
        f"    {option.name}: {_type(option)} | None\n"
        + textwrap.fill(f'"""{option.declared.argument}"""', 116, initial_indent="    ", subsequent_indent="    ")
        for option in UPLOAD_OPTIONS
    )
    imports = "from collections.abc import Mapping\nfrom typing import Literal, TypedDict\n"
    head = f'"""Options of an upload. {note}"""\n\nfrom __future__ import annotations\n\n{imports}\n\n'
    return f'{head}class DeclaredOptions(TypedDict, total=False):\n    """Those that the service gets."""\n\n{fields}\n'


def _type(option: UploadOption) -> str:
    if option.is_choice:
        return f"Literal[{', '.join(map(repr, option.choices))}]"
    return {float: "float", Mapping: "Mapping[str, str]"}.get(option.kind, "str")


def updated() -> str:
    """The document with the present options."""
    rows = "".join(f"| `{item.name}`, `{item.flag}` | {item.declared.meaning} |\n" for item in UPLOAD_OPTIONS)
    return _TABLE.sub(lambda match: rows, DOCUMENT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    DOCUMENT.write_text(updated(), encoding="utf-8")
