"""The module structure: no import cycles, no overlong modules, no packages with too many modules."""

from __future__ import annotations

import graphlib
import importlib.util
from collections import Counter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ["engine", "service", "workers", "migrations", "tapeline", "benchmarks"]
"""The packages that must follow these rules."""
MAX_MODULE_LINES = 500
ROOMS = {
    "training": "workers.kinds",
    "work": "workers.kinds",
    "page": "service.web.rooms",
    "submission": "service.application.rooms",
    "model": "service.models.rooms",
}
"""The rooms of kinds of jobs that only some processes load, and where they count as: a folder with rooms for all
processes has no layer of its own."""
MAX_PACKAGE_MODULES = 12
"""Modules of one folder, not counting its ``__init__`` and its subfolders."""


def modules(package: str) -> list[Path]:
    """All Python files of a package, subfolders included."""
    return sorted((ROOT / package.replace(".", "/")).rglob("*.py"))


def imports(*packages: str) -> dict[str, set[str]]:
    """Map each module to the modules of these packages that it imports, also inside functions."""
    graph = grimp.build_graph(*packages, cache_dir=None)
    return {_placed(name): set(map(_placed, graph.find_modules_directly_imported_by(name))) for name in graph.modules}


def _placed(module: str) -> str:
    """The name of a module; that of a room of a kind is the one of its layer."""
    folder, _, room = module.rpartition(".")
    is_room = folder.startswith("service.kinds.") and room in ROOMS
    return f"{ROOMS[room]}.{folder.rpartition('.')[2]}" if is_room else module


def import_cycle(graph: dict[str, set[str]]) -> list[str]:
    """An import cycle, or an empty list."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        members: list[str] = error.args[1]
        return members
    return []


def folder_imports(graph: dict[str, set[str]], package: str) -> dict[str, set[str]]:
    """The imports between the folders and modules directly inside a package."""
    depth = package.count(".") + 2
    merged: dict[str, set[str]] = {}
    for module, imported in graph.items():
        if module.startswith(f"{package}."):  # the package itself may import its parts, to list or register them
            part = ".".join(module.split(".")[:depth])
            targets = {".".join(name.split(".")[:depth]) for name in imported if name.startswith(f"{package}.")}
            merged[part] = merged.get(part, set()) | targets - {part}
    return merged


def folder_cycles(graph: dict[str, set[str]]) -> dict[str, list[str]]:
    """The import cycles between folders at any depth, by the folder that contains them."""
    folders = {module.rpartition(".")[0] for module in graph} - {""}
    folders |= {".".join(folder.split(".")[:depth]) for folder in folders for depth in range(1, folder.count(".") + 1)}
    cycles = {folder: import_cycle(folder_imports(graph, folder)) for folder in sorted(folders)}
    return {folder: cycle for folder, cycle in cycles.items() if cycle}


@pytest.mark.parametrize("package", PACKAGES)
def test_the_package_is_imported_from_this_tree(package: str) -> None:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert Path(str(spec.origin)).is_relative_to(ROOT)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_import_cycle_between_modules_of_a_package(package: str) -> None:
    assert import_cycle(imports(package)) == []


def test_no_import_cycle_across_packages() -> None:
    assert import_cycle(imports(*PACKAGES)) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_import_cycle_between_folders_at_any_depth(package: str) -> None:
    assert folder_cycles(imports(package)) == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_imports_its_own_packages_public_names(package: str) -> None:
    assert [module for module, imported in imports(package).items() if package in imported] == []


@pytest.mark.parametrize("package", [*PACKAGES, "tests"])
def test_modules_are_short(package: str) -> None:
    lines = {path.relative_to(ROOT).as_posix(): len(path.read_text("utf-8").splitlines()) for path in modules(package)}
    assert {path: count for path, count in lines.items() if count > MAX_MODULE_LINES} == {}


@pytest.mark.parametrize("package", [*PACKAGES, "tests"])
def test_folders_have_few_modules(package: str) -> None:
    counted = (path for path in modules(package) if path.stem != "__init__")
    counts = Counter(path.parent.relative_to(ROOT).as_posix() for path in counted)
    del counts["migrations/versions"]  # migrations are never merged, moved or removed
    assert {folder: count for folder, count in counts.items() if count > MAX_PACKAGE_MODULES} == {}


def test_a_cycle_through_an_import_inside_a_function_is_detected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "rounds" / "inner"
    for folder in (package.parent, package, package / "a", package / "b"):
        folder.mkdir()
        (folder / "__init__.py").touch()
    (package / "a" / "one.py").write_text("from rounds.inner.b import two\n")
    (package / "b" / "two.py").write_text("def later():\n    from rounds.inner.a.three import x\n")
    (package / "a" / "three.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert import_cycle(imports("rounds")) == []
    cycles = folder_cycles(imports("rounds"))
    assert {folder: set(cycle) for folder, cycle in cycles.items()} == {
        "rounds.inner": {"rounds.inner.a", "rounds.inner.b"}
    }
    (package / "a" / "three.py").write_text("from rounds.inner.a import one\n")
    assert set(import_cycle(imports("rounds"))) == {"rounds.inner.a.one", "rounds.inner.a.three", "rounds.inner.b.two"}


def test_a_cycle_between_two_packages_is_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package, other in (("hither", "thither"), ("thither", "hither")):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
        (tmp_path / package / "one.py").write_text(f"def later():\n    from {other} import one\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert import_cycle(imports("hither")) == []
    assert set(import_cycle(imports("hither", "thither"))) == {"hither.one", "thither.one"}


def test_rows_are_locked_only_by_the_function_that_refreshes_them() -> None:
    paths = [path for package in ("service", "workers") for path in (ROOT / package).rglob("*.py")]
    uses = [path.name for path in paths if ".with_for_update(" in path.read_text(encoding="utf-8")]
    assert uses == ["database.py"], "use locking(): an object that is loaded already would keep its state"
