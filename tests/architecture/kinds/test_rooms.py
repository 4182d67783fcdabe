"""Each kind has the rooms that its processes load by name, and each process loads only its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from service import kinds
from service.application.kinds import SubmissionOfKind
from service.kinds import rooms
from service.kinds.pages import page_of
from service.kinds.specs import SpecsOfKind
from service.models.kinds import ModelOfKind
from service.states import JobKind
from workers.training import kinds as work
from workers.training.kinds import TrainingOfKind, Work

FOLDER = Path(kinds.__file__).parent
LIBRARIES = {"pydantic", "numpy", "flask", "celery", "sqlalchemy", "matplotlib", "engine", "workers"}
LOADED = {
    "service.kinds": LIBRARIES,
    "service.spec.validation": LIBRARIES - {"pydantic"},
    "service.models.predicting": {"flask", "celery", "matplotlib", "workers"},
}
"""What a module must not load, with the rooms that it is for."""


def test_the_kinds_are_those_that_the_database_knows_and_each_has_a_folder() -> None:
    assert [kind.name for kind in kinds.ALL] == list(JobKind)
    folders = {path.parent.name for room in ("training", "work") for path in FOLDER.glob(f"*/{room}.py")}
    assert folders - {"supervised"} == {kind.name for kind in kinds.ALL}


@pytest.mark.parametrize("kind", [kind.name for kind in kinds.TRAINED])
def test_a_kind_that_trains_has_all_rooms(kind: str) -> None:
    specs = rooms.specs(kind)
    assert isinstance(specs, SpecsOfKind)
    assert specs.model.__name__ == f"{kind.capitalize()}Spec"  # the form finds its schema by this name
    assert isinstance(rooms.room(kind, "model").MODEL, ModelOfKind)
    assert isinstance(work.training(kind), TrainingOfKind)
    assert [rule.code for rule in specs.diagnosis.rules] == list(kinds.of(kind).findings)
    assert set(specs.diagnosis.advice) == set(kinds.of(kind).findings)


@pytest.mark.parametrize("kind", [kind.name for kind in kinds.ALL if not kind.trains])
def test_a_kind_that_trains_nothing_has_work(kind: str) -> None:
    assert isinstance(work.work(kind), Work)
    assert isinstance(rooms.room(kind, "submission").SUBMISSION, SubmissionOfKind)


@pytest.mark.parametrize("kind", kinds.ALL, ids=lambda kind: kind.name)
def test_each_kind_has_pages_and_their_templates_exist(kind: kinds.KindOfJob) -> None:
    page = page_of(kind.name)
    own = [*page.results, *page.evaluation, *page.examples, page.template, page.play]
    own = [name for name in own if name.startswith(f"{kind.name}/")]
    folder = FOLDER / kind.name / "templates"
    assert sorted(path.name for path in folder.glob("*")) == sorted(name.partition("/")[2] for name in own)


def test_nothing_is_known_of_a_kind_of_a_newer_release() -> None:
    newer = kinds.of("diffusion")
    assert (newer.title, newer.abilities, newer.metrics) == ("diffusion", frozenset(), {})


@pytest.mark.stack
@pytest.mark.parametrize("module", LOADED)
def test_a_process_loads_only_the_rooms_that_it_needs(module: str) -> None:
    code = f"import sys, {module}; print('\\n'.join(sys.modules))"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert LOADED[module] & loaded == set()
    assert [name for name in loaded if name.startswith("service.kinds.") and name.endswith(".training")] == []
