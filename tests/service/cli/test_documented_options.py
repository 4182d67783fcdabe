"""The commands in the documents have the options that they are shown with."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from service.cli import main

ROOT = Path(__file__).parents[3]
LINES = sorted(
    {
        line.strip()
        for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))
        for block in re.findall(r"^```sh\n(.*?)^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        for line in block.replace("\\\n", " ").splitlines()
        if re.match(r"\s*tapeline [a-z]", line)
    }
)


@pytest.mark.parametrize("line", LINES)
def test_a_documented_command_has_its_options(line: str) -> None:
    words = shlex.split(re.split(r"[|;&>]| #", line)[0])[1:]
    command: click.Command | None = main
    context = click.Context(main)
    options = {option for parameter in main.params for option in parameter.opts}
    for word in words:
        if isinstance(command, click.Group) and not word.startswith("-"):
            command = command.resolve_command(context, [word])[1]
            assert command is not None, word
            options |= {option for parameter in command.params for option in parameter.opts}
    used = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    assert used <= options


def test_the_documents_show_commands() -> None:
    assert len(LINES) > 30
