"""The scripts of the pages follow the rules of the Python modules; ``common`` and ``charts`` know no page."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from pathlib import Path

from tests.architecture.test_modules import MAX_MODULE_LINES, MAX_PACKAGE_MODULES, ROOT, import_cycle

SERVICE = ROOT / "service"
STATIC = SERVICE / "web" / "static"
IMPORT = re.compile(r'^(?:import|export)\b[^";]*"(\.[^"]+)"|\bimport\("(\.[^"]+)"\)', re.MULTILINE)
"""A static import or export from a relative path, or an import inside a function."""


def scripts() -> dict[str, Path]:
    """All scripts of ours by the path under which they are served: those of a feature are in a folder with its name."""
    ours = (path for path in STATIC.rglob("*.js") if not path.is_relative_to(STATIC / "lib"))
    found = {path.relative_to(STATIC).as_posix(): path for path in ours}
    of_features = SERVICE.glob("features/*/static/*.js")
    return found | {f"{path.parent.parent.name}/{path.name}": path for path in of_features}


def imports() -> dict[str, set[str]]:
    """Map each script to those that it imports."""

    def imported(script: str, path: Path) -> set[str]:
        paths = ["".join(groups) for groups in IMPORT.findall(path.read_text("utf-8"))]
        return {posixpath.normpath(posixpath.join(posixpath.dirname(script), name)) for name in paths}

    return {script: imported(script, path) for script, path in scripts().items()}


def folder_imports() -> dict[str, set[str]]:
    """The imports between folders."""
    merged: dict[str, set[str]] = {}
    for script, imported in imports().items():
        folder = Path(script).parent.as_posix()
        merged[folder] = merged.get(folder, set()) | {Path(path).parent.as_posix() for path in imported} - {folder}
    return merged


def test_every_import_names_a_script() -> None:
    graph = imports()
    assert sum(map(len, graph.values())) > 150
    assert {script: missing for script, imported in graph.items() if (missing := imported - graph.keys())} == {}


def test_every_script_is_imported_or_named_by_a_page() -> None:
    imported = set().union(*imports().values())
    naming = [*SERVICE.rglob("templates/*.html"), *(SERVICE / "kinds").rglob("page.py")]
    names = "".join(path.read_text("utf-8") for path in naming)
    assert [script for script in imports() if script not in imported and f'"{script}"' not in names] == []


def test_no_import_cycle() -> None:
    assert import_cycle(imports()) == []
    assert import_cycle(folder_imports()) == []


def test_shared_scripts_import_none_of_a_page() -> None:
    assert folder_imports()["common"] == set()
    assert folder_imports()["charts"] == {"common"}


def test_scripts_are_short_and_folders_have_few() -> None:
    lines = {script: len(path.read_text("utf-8").splitlines()) for script, path in scripts().items()}
    assert {script: count for script, count in lines.items() if count > MAX_MODULE_LINES} == {}
    counts = Counter(posixpath.dirname(script) for script in lines)
    assert {folder: count for folder, count in counts.items() if count > MAX_PACKAGE_MODULES} == {}
