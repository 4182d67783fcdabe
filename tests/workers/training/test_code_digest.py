from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import grimp
import pytest

from service import kinds
from workers.training import code_digest
from workers.training.code_digest import DECIDES_BITS, digest_of

ROOT = Path(__file__).parents[3]
WITHOUT_EFFECT = {
    "service.datasets": "errors and the list of names",
    "service.datasets.formats.array_folders": "where arrays are kept",
    "service.datasets.catalogue": "where datasets are listed",
    "service.datasets.download": "what it fetches has a known digest",
    "service.datasets.errors": "errors",
    "service.datasets.formats": "a list of names",
    "service.datasets.formats.archives": "imported data has a digest",
    "service.datasets.formats.array_files": "imported data has a digest",
    "service.datasets.formats.delimited": "imported data has a digest",
    "service.datasets.formats.npz": "imported data has a digest",
    "service.datasets.formats.options": "imported data has a digest",
    "service.datasets.formats.photos": "imported data has a digest",
    "service.datasets.tables.analysis": "a list of names",
    "service.datasets.tables.analysis.leaks": "finds, changes nothing",
    "service.datasets.importer": "imported data has a digest",
    "service.datasets.uploads": "imported data has a digest",
    "service.datasets.tables": "a list of names",
    "service.datasets.tables.classes": "imported data has a digest",
    "service.datasets.tables.detection": "imported data has a digest",
    "service.datasets.tables.importing": "imported data has a digest",
    "service.datasets.tables.numerals": "imported data has a digest",
    "service.datasets.tables.parts": "imported data has a digest",
    "service.models": "a list of names",
    "service.models.kinds": "what a room has",
    "workers.training": "a list of names",
    "workers.training.kinds": "what a room has",
    "workers.training.training_run": "a lease, and the data, which have a digest",
}
"""Modules that training imports but that affect no bit of a result, with the reason."""


def copy_modules(names: Iterable[str], folder: Path) -> Path:
    """Copy these modules and packages into a folder, and return it."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name)
        for path in ROOT.glob(name):
            if path.is_file():
                target = folder / path.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target)
    return folder


@pytest.fixture
def code_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of part of the code, to which the digest is restricted."""
    part = ("engine/optim", "service/models/networks.py", "workers/training/build.py")
    assert all(any(name.startswith(prefix) for prefix in DECIDES_BITS) for name in part)
    monkeypatch.setattr(code_digest, "DECIDES_BITS", part)
    return copy_modules(part, tmp_path)


def test_a_copy_has_the_digest_of_the_running_code(tmp_path: Path) -> None:
    assert digest_of(copy_modules(DECIDES_BITS, tmp_path)) == code_digest.digest()


def test_comments_docstrings_and_layout_do_not_change_the_digest(code_copy: Path) -> None:
    path = code_copy / "engine" / "optim" / "sgd.py"
    text = path.read_text("utf-8")
    path.write_text(
        f'"""Another docstring."""\n# a comment\n\n\n{text.split(chr(34) * 3, 2)[2]}\n\n"""More words."""\n'
    )
    assert digest_of(code_copy) == digest_of(ROOT)


@pytest.mark.parametrize("name", ["engine/optim/sgd.py", "service/models/networks.py", "workers/training/build.py"])
def test_one_added_line_changes_the_digest(code_copy: Path, name: str) -> None:
    (code_copy / name).write_text((code_copy / name).read_text("utf-8") + "\nCHANGED = 1\n")
    assert digest_of(code_copy) != digest_of(ROOT)


def test_the_value_and_type_of_a_constant_change_the_digest(code_copy: Path) -> None:
    path, digests = code_copy / "engine" / "optim" / "sgd.py", set()
    for value in ("1", "1.0", "True", "'1'"):
        path.write_text(f"x = {value}\n")
        digests.add(digest_of(code_copy))
    assert len(digests) == 4


def test_every_module_between_data_and_weights_is_in_the_digest() -> None:
    graph = grimp.build_graph("service", "engine", "workers", cache_dir=None)
    rooms = [f"service.kinds.{kind.name}.training" for kind in kinds.TRAINED]
    used = {*rooms, "workers.training.build"}.union(*(graph.find_upstream_modules(room) for room in rooms))
    included = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in code_digest.files(ROOT)}
    included |= {name.removesuffix(".__init__") for name in included}
    packages = ("engine", "service.datasets", "service.models", "workers.training")
    missing = {
        module
        for module in used
        if module.startswith(packages) or module.endswith((".training", ".model"))
        if module not in included
    }
    assert missing - WITHOUT_EFFECT.keys() == set()
