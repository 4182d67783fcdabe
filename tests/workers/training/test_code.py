from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import grimp
import pytest

from workers.training import code
from workers.training.code import DECIDES_BITS, digest_of

ROOT = Path(__file__).parents[3]
WITHOUT_EFFECT = {
    "service.datasets": "errors and the list of names",
    "service.datasets.catalogue": "where datasets are listed",
    "service.datasets.download": "what it fetches has a known digest",
    "service.datasets.errors": "errors",
    "service.datasets.failures": "errors",
    "service.datasets.formats": "a list of names",
    "service.datasets.formats.archives": "what an import makes has a digest",
    "service.datasets.formats.array_files": "what an import makes has a digest",
    "service.datasets.formats.class_folders": "what an import makes has a digest",
    "service.datasets.formats.delimited": "what an import makes has a digest",
    "service.datasets.formats.npz": "what an import makes has a digest",
    "service.datasets.formats.photos": "what an import makes has a digest",
    "service.datasets.formats.skipped_files": "names and errors",
    "service.datasets.importer": "what an import makes has a digest",
    "service.datasets.tables": "a list of names",
    "service.datasets.tables.classes": "what an import makes has a digest",
    "service.datasets.tables.detection": "what an import makes has a digest",
    "service.datasets.tables.importing": "what an import makes has a digest",
    "service.datasets.tables.numerals": "what an import makes has a digest",
    "service.datasets.tables.parts": "what an import makes has a digest",
    "service.models": "a list of names",
}
"""Modules that training imports, and that change no bit of a result."""


def copy_of(names: Iterable[str], to: Path) -> Path:
    """A folder with these modules and folders of modules."""
    for name in names:
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, to / name)
        else:
            shutil.copy(ROOT / name, to / name)
    return to


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of some of the code, which counts as all of it."""
    some = ("engine/optim", "service/models/networks.py", "workers/training/build.py")
    assert all(any(name.startswith(known) for known in DECIDES_BITS) for name in some)
    monkeypatch.setattr(code, "DECIDES_BITS", some)
    return copy_of(some, tmp_path)


def test_the_digest_is_that_of_the_installed_code(tmp_path: Path) -> None:
    assert digest_of(copy_of(DECIDES_BITS, tmp_path)) == code.digest()


def test_comments_docstrings_and_layout_do_not_count(copy: Path) -> None:
    path = copy / "engine" / "optim" / "sgd.py"
    text = path.read_text("utf-8")
    path.write_text(
        f'"""Another docstring."""\n# a comment\n\n\n{text.split(chr(34) * 3, 2)[2]}\n\n"""More words."""\n'
    )
    assert digest_of(copy) == digest_of(ROOT)


@pytest.mark.parametrize("name", ["engine/optim/sgd.py", "service/models/networks.py", "workers/training/build.py"])
def test_one_changed_line_counts(copy: Path, name: str) -> None:
    (copy / name).write_text((copy / name).read_text("utf-8") + "\nCHANGED = 1\n")
    assert digest_of(copy) != digest_of(ROOT)


def test_a_changed_number_and_its_type_count(copy: Path) -> None:
    path, found = copy / "engine" / "optim" / "sgd.py", set()
    for value in ("1", "1.0", "True", "'1'"):
        path.write_text(f"x = {value}\n")
        found.add(digest_of(copy))
    assert len(found) == 4


def test_every_module_between_data_and_weights_is_in_the_digest() -> None:
    graph = grimp.build_graph("service", "engine", "workers", cache_dir=None)
    used = graph.find_upstream_modules("workers.training.build") | {"workers.training.build"}
    known = tuple(name.removesuffix(".py").replace("/", ".") for name in DECIDES_BITS)
    places = ("engine", "service.datasets", "service.models", "workers.training")
    missing = {
        module
        for module in used
        if module.startswith(places) and not any(module == name or module.startswith(f"{name}.") for name in known)
    }
    assert missing - WITHOUT_EFFECT.keys() == set()
