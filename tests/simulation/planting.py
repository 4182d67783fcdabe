"""Plants a bug in a module before it is loaded, and hunts all of them, each in a process of its own."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import CodeType, ModuleType

from tests.simulation.planted import BUGS, Bug


def plant(name: str) -> None:
    """Plant a bug; its module must not be loaded yet."""
    bug = BUGS[name]
    assert bug.module not in sys.modules, f"{bug.module} is loaded already"
    sys.meta_path.insert(0, _Finder(bug))


class _Finder(MetaPathFinder):
    def __init__(self, bug: Bug) -> None:
        self._bug = bug

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._bug.module:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        assert spec is not None
        assert spec.origin is not None
        spec.loader = _Loader(fullname, spec.origin, self._bug)
        return spec


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, fullname: str, path: str, bug: Bug) -> None:
        super().__init__(fullname, path)
        self._bug = bug

    def get_code(self, fullname: str) -> CodeType:
        source = Path(self.path).read_text()
        assert source.count(self._bug.old) == 1, f"{self._bug.old!r} is not in {fullname} once"
        return compile(source.replace(self._bug.old, self._bug.new), self.path, "exec")


def hunt_all(seconds: float) -> int:
    """Hunt each bug for some seconds of processor time; prints the table."""
    missed = []
    sys.stdout.write("| bug | invariant | seed | CPU seconds |\n|---|---|--:|--:|\n")
    for name in BUGS:
        found = hunt(name, seconds)
        if found is None:
            missed.append(name)
        seed, cpu_s, invariant = found or ("", f"> {seconds:g}", "**not found**")
        sys.stdout.write(f"| {name}: {BUGS[name].why} | {invariant} | {seed} | {cpu_s} |\n")
        sys.stdout.flush()
    sys.stdout.write(f"\n{len(BUGS) - len(missed)} of {len(BUGS)} found\n")
    return int(bool(missed))


def hunt(name: str, seconds: float) -> tuple[str, str, str] | None:
    """Hunt one bug in a process of its own; returns the seed, the processor time and the invariant, if it was found."""
    command = [sys.executable, "-m", "tests.simulation", "--plant", name, "--seconds", str(seconds), "--no-shrinking"]
    command += ["--postgresql"] if BUGS[name].on_postgresql else []
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    match = re.search(r"FAILED after ([\d.]+) CPU seconds: seed (\d+): ([^:]*):", result.stdout)
    if match is None and result.returncode:
        raise RuntimeError(result.stderr)
    return (match[2], match[1], match[3]) if match is not None else None
