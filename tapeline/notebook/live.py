"""What is shown while something is waited for: a line in a terminal, a display that updates in place in a notebook."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import Any, Final

_CLEAR: Final = "\r\x1b[2K"


def in_notebook() -> bool:
    """Whether the program runs in IPython with displays of HTML, and not in a terminal."""
    ipython = sys.modules.get("IPython")  # where it is not loaded, there is no notebook
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and type(shell).__name__ != "TerminalInteractiveShell"


@contextmanager
def live(
    line: Callable[[], str], html: Callable[[], str] | None, *, progress: bool | None
) -> Iterator[Callable[[], None]]:
    """Show a line, or HTML; yields a function that shows it anew.

    Args:
        html: what a notebook shows in place of the line.
        progress: ``None``: in a notebook or a terminal only. In a file, each new line is written.
    """
    shown: str | None = None

    def write_line() -> None:
        nonlocal shown
        if (text := line()) != shown:
            shown = text
            width = shutil.get_terminal_size().columns - 1  # a line that wraps could not be cleared
            sys.stderr.write(f"{_CLEAR}{text[:width]}" if sys.stderr.isatty() else f"{text}\n")
            sys.stderr.flush()

    if progress is False or (progress is None and not in_notebook() and not sys.stderr.isatty()):
        yield lambda: None
    elif in_notebook():
        yield _displayed(html or (lambda: f"<div>{escape(line())}</div>"))
    else:
        try:
            yield write_line
        finally:
            if shown is not None and sys.stderr.isatty():
                sys.stderr.write("\n")


def _displayed(html: Callable[[], str]) -> Callable[[], None]:
    from IPython.display import HTML, display  # it is loaded: the program runs in it

    handle: Any = None

    def update() -> None:
        nonlocal handle
        if handle is None:
            handle = display(HTML(html()), display_id=True)
        else:
            handle.update(HTML(html()))

    return update
