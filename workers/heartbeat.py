"""Liveness: a file that a loop touches in each round, and a check of its age.

``python -m workers.heartbeat worker`` checks the worker with the state folder of the environment; exit code 0 means
healthy. It imports only the standard library, since a container runs it every few seconds.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

SILENCE_S: Final = 30.0
"""Maximum time without a beat; the slowest loop beats every 5 s."""


class Heartbeat:
    """The file ``run/<name>`` in the state folder of one process. It is removed at the start."""

    def __init__(self, home: Path, name: str) -> None:
        self._path = home / "run" / name
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def beat(self) -> None:
        """Touch the file. If the folder is not writable, only the check fails."""
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.touch()


def silence_s(home: Path, name: str) -> float | None:
    """Seconds since the last beat; ``None`` if there was none."""
    try:
        return max(0.0, time.time() - (home / "run" / name).stat().st_mtime)
    except OSError:
        return None


def main(arguments: list[str]) -> int:
    """Check one process."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m workers.heartbeat worker|scheduler\n")
        return 2
    home = Path(os.environ.get("TAPELINE_HOME") or Path.home() / ".tapeline").expanduser()
    elapsed_s = silence_s(home, arguments[0])
    if elapsed_s is None:
        sys.stdout.write("no heartbeat yet\n")
    else:
        sys.stdout.write(f"last seen {elapsed_s:.1f} s ago\n")
    return 0 if elapsed_s is not None and elapsed_s < SILENCE_S else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
