"""Text output of the command line."""

from __future__ import annotations

import pytest
from rich.table import Column

from service.cli.text import print_table


def test_each_row_of_a_table_is_one_line_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([Column("NAME"), Column("NOTE")], [("x" * 200, "two\nlines"), ("\x1b[31mred", "")], best=1)
    assert capsys.readouterr().out.split("\n") == [
        "NAME\tNOTE",
        "x" * 200 + "\ttwo lines",
        "\N{REPLACEMENT CHARACTER}[31mred\t",
        "",
    ]
