"""Executes a notebook in IPython, as a program of its own; writes what each cell shows as a line of JSON.

``python -m tests.tapeline.notebooks FILE``. The displays are those of a notebook: MIME bundles, with updates in place.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output


def main(path: str) -> int:
    """Run the cells until one fails."""
    shell = InteractiveShell.instance(colors="nocolor")
    cells = json.loads(Path(path).read_text("utf-8"))["cells"]
    for source in ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"):
        with capture_output() as captured:
            result = shell.run_cell(source)
        if not result.success:
            sys.stderr.write(captured.stdout + captured.stderr)
            return 1
        shown = [output.data for output in captured.outputs]
        if result.result is not None:
            shown.append(shell.display_formatter.format(result.result)[0])
        updates = sum(bool(output.update) for output in captured.outputs)
        cell = {"text": captured.stdout, "shown": shown, "updates": updates}
        sys.stdout.write(json.dumps(cell, default=as_text) + "\n")
    return 0


def as_text(value: Any) -> str:
    """Bytes of a picture in base64, as the messages of a kernel have them."""
    return base64.b64encode(value).decode()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
