"""Writes the terms of the Learn page into the glossary: ``python -m tests.service.web.docs.glossary``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from service.web.docs.terms import TERMS

GLOSSARY: Final = Path(__file__).parents[4] / "docs" / "glossary.md"


def updated() -> str:
    """The glossary with the present terms, in its first table."""
    rows = "".join(f"| **{term.name}** | {term.text} |\n" for term in TERMS)
    head, rule, rest = GLOSSARY.read_text(encoding="utf-8").partition("|---|---|\n")
    return head + rule + re.sub(r"\A(\|.*\n)*", lambda _: rows, rest)


if __name__ == "__main__":
    GLOSSARY.write_text(updated(), encoding="utf-8")
