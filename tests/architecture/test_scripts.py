"""The scripts of the pages follow the rules of the Python modules; ``common`` and ``charts`` know no page."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from tests.architecture.test_modules import MAX_MODULE_LINES, MAX_PACKAGE_MODULES, ROOT, import_cycle

WEB = ROOT / "service" / "web"
STATIC = WEB / "static"
IMPORT = re.compile(r'^(?:import|export)\b[^";]*"(\.[^"]+)"|\bimport\("(\.[^"]+)"\)', re.MULTILINE)
"""A static import or export from a relative path, or an import inside a function."""


def scripts() -> list[Path]:
    """All scripts of ours."""
    return sorted(path for path in STATIC.rglob("*.js") if not path.is_relative_to(STATIC / "lib"))


def imports() -> dict[str, set[str]]:
    """Map each script to those that it imports, as paths relative to ``static``."""

    def imported(path: Path) -> set[str]:
        paths = ["".join(groups) for groups in IMPORT.findall(path.read_text("utf-8"))]
        return {(path.parent / name).resolve().relative_to(STATIC.resolve()).as_posix() for name in paths}

    return {path.relative_to(STATIC).as_posix(): imported(path) for path in scripts()}


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


def test_every_script_is_imported_or_in_a_template() -> None:
    imported = set().union(*imports().values())
    templates = "".join(path.read_text("utf-8") for path in WEB.rglob("templates/*.html"))
    assert [script for script in imports() if script not in imported and f'"{script}"' not in templates] == []


def test_no_import_cycle() -> None:
    assert import_cycle(imports()) == []
    assert import_cycle(folder_imports()) == []


def test_shared_scripts_import_none_of_a_page() -> None:
    assert folder_imports()["common"] == set()
    assert folder_imports()["charts"] == {"common"}


def test_scripts_are_short_and_folders_have_few() -> None:
    lines = {path.relative_to(STATIC): len(path.read_text("utf-8").splitlines()) for path in scripts()}
    assert {path: count for path, count in lines.items() if count > MAX_MODULE_LINES} == {}
    counts = Counter(path.parent for path in lines)
    assert {folder: count for folder, count in counts.items() if count > MAX_PACKAGE_MODULES} == {}
