"""Record the responses that the tests of commands and of the client's methods play: run these tests with a real stack.

``python -m tests.tapeline.record`` writes ``recordings/*.json`` if all tests pass. With ``--check`` it writes
nothing, and tells whether the tests hold with the service as it is now. With ``-k``, as of pytest, it replaces the
recordings of the selected tests.
"""

from __future__ import annotations

import os
import sys

import pytest

from tests.tapeline.stub.recordings import VARIABLE

FOLDERS = ("tests/service/cli", "tests/tapeline")


class Selection:
    """Selects the tests that play recordings."""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if "recordings" in getattr(item, "fixturenames", ())]
        for item in items:
            item.add_marker(pytest.mark.stack)  # here, they talk to a whole stack


def main() -> int:
    """Run the tests; the arguments besides ``--check`` are those of pytest."""
    arguments = sys.argv[1:]
    is_check = "--check" in arguments
    if is_check:
        arguments.remove("--check")
    os.environ[VARIABLE] = "check" if is_check else "part" if "-k" in arguments else "whole"
    options = [*FOLDERS, "-q", "-p", "no:xdist", "-m", "unit or stack", *arguments]
    return int(pytest.main(options, plugins=[Selection()]))


if __name__ == "__main__":
    sys.exit(main())
