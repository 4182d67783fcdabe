"""The module structure: no import cycles, no module that is too long, no package with too many modules."""

from __future__ import annotations

import graphlib
import importlib.util
from collections import Counter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ["engine", "service", "workers", "migrations", "tapeline", "benchmarks"]
"""The packages that keep these rules."""
MAX_MODULE_LINES = 400
MAX_PACKAGE_MODULES = 12
"""Modules of one folder, without its __init__ and the folders in it."""


def modules(package: str) -> list[Path]:
    """The files of a package, all folders."""
    return sorted((ROOT / package.replace(".", "/")).rglob("*.py"))


def imports(*packages: str) -> dict[str, set[str]]:
    """For each module those of the packages that it imports, anywhere: imports inside of functions count."""
    graph = grimp.build_graph(*packages, cache_dir=None)
    return {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """A cycle of imports, or nothing."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def folders(graph: dict[str, set[str]], package: str) -> dict[str, set[str]]:
    """The imports of a package between the folders and modules directly in it."""
    depth = package.count(".") + 2
    joined: dict[str, set[str]] = {}
    for module, imported in graph.items():
        if module != package:  # the package itself lists what is in it
            part = ".".join(module.split(".")[:depth])
            others = {".".join(name.split(".")[:depth]) for name in imported} - {part, package}
            joined[part] = joined.get(part, set()) | others
    return joined


@pytest.mark.parametrize("package", PACKAGES)
def test_the_package_is_that_of_this_tree(package: str) -> None:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert Path(str(spec.origin)).is_relative_to(ROOT)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_modules_import_each_other(package: str) -> None:
    assert cycle(imports(package)) == []


def test_no_modules_of_different_packages_import_each_other() -> None:
    assert cycle(imports(*PACKAGES)) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_folders_import_each_other(package: str) -> None:
    assert cycle(folders(imports(package), package)) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_in_a_package_imports_the_list_of_its_public_names(package: str) -> None:
    assert [module for module, imported in imports(package).items() if package in imported] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_modules_are_short(package: str) -> None:
    lines = {path.relative_to(ROOT).as_posix(): len(path.read_text("utf-8").splitlines()) for path in modules(package)}
    assert {path: count for path, count in lines.items() if count > MAX_MODULE_LINES} == {}


@pytest.mark.parametrize("package", [*PACKAGES, "tests"])
def test_folders_are_narrow(package: str) -> None:
    counts = Counter(path.parent.relative_to(ROOT).as_posix() for path in modules(package) if path.stem != "__init__")
    assert {folder: count for folder, count in counts.items() if count > MAX_PACKAGE_MODULES} == {}


def test_a_cycle_is_found_also_when_a_function_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "rounds"
    for folder in (package, package / "a", package / "b"):
        folder.mkdir()
        (folder / "__init__.py").touch()
    (package / "a" / "one.py").write_text("from rounds.b import two\n")
    (package / "b" / "two.py").write_text("def later():\n    from rounds.a.three import x\n")
    (package / "a" / "three.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert cycle(imports("rounds")) == []
    assert set(cycle(folders(imports("rounds"), "rounds"))) == {"rounds.a", "rounds.b"}
    (package / "a" / "three.py").write_text("from rounds.a import one\n")
    assert set(cycle(imports("rounds"))) == {"rounds.a.one", "rounds.a.three", "rounds.b.two"}


def test_a_cycle_of_two_packages_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package, other in (("hither", "thither"), ("thither", "hither")):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
        (tmp_path / package / "one.py").write_text(f"def later():\n    from {other} import one\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert cycle(imports("hither")) == []
    assert set(cycle(imports("hither", "thither"))) == {"hither.one", "thither.one"}
