"""Every suggestion of every finding can be submitted for the job that it was made for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from service.application.specs import SpecChecks
from service.datasets.repository import DatasetRepository
from service.datasets.shapes import shape_of
from service.diagnosis.advice import suggestions
from service.errors import SpecError
from service.runtime.settings import Auth, Settings
from service.spec.findings import CODES
from service.spec.presets.definitions import PRESETS
from service.spec.schema import Kind
from service.states import FindingCode
from service.storage.database import Database

Document = dict[str, Any]
_SGD = {"name": "sgd", "learning_rate": 0.5}
_FLAT = [{"units": 20, "activation": "sigmoid"}] * 5


def _classifier(dataset: str, **settings: Any) -> Document:
    return {"kind": "classifier", "dataset": {"name": dataset}} | settings


def _gan(dataset: str = "mnist-10k", **settings: Any) -> Document:
    return {"kind": "gan", "dataset": {"name": dataset}} | settings


JOBS: dict[str, Document] = {
    **{
        f"digits, {name}": _classifier("mnist-10k", preset=name) for name in PRESETS[Kind.CLASSIFIER] if name != "table"
    },
    "colour": _classifier("stacked-mnist"),
    "table": _classifier("iris"),
    "table of sums": _classifier("iris", optimizer=_SGD, loss={"name": "softmax_cross_entropy", "reduction": "sum"}),
    "deep table": _classifier(
        "breast-cancer",
        layers=[*_FLAT, {"units": 2, "activation": "softmax"}],
        initializer={"name": "uniform", "scale": 0.01},
        optimizer=_SGD,
        early_stopping={"patience": 3},
    ),
    **{f"GAN, {name}": _gan(preset=name) for name in PRESETS[Kind.GAN]},
    **{f"conditional GAN, {name}": _gan(preset=name, conditional=True) for name in PRESETS[Kind.GAN]},
    "colour GAN": _gan("stacked-mnist"),
    "critic": _gan(
        loss="wasserstein",
        discriminator={"critic_steps": 5, "gradient_penalty": 10, "layers": [{"units": 1, "activation": "linear"}]},
    ),
    "hinge": _gan(loss="hinge", conditional=True, discriminator={"spectral_norm": True}),
    "two optimizers": _gan(generator={"optimizer": _SGD}, discriminator={"optimizer": {"name": "adamw"}}),
}


@pytest.fixture
def checks(sqlite_url: str, tmp_path: Path) -> Iterator[SpecChecks]:
    settings = Settings(
        home=tmp_path,
        workers=1,
        database_url="",
        broker_url=None,
        artifacts=tmp_path / "artifacts",
        data=tmp_path / "data",
        auth=Auth.LOCAL,
        lease_s=15.0,
    )
    with closing(Database(sqlite_url, application="tests")) as database:
        yield SpecChecks(database=database, datasets=DatasetRepository(settings, database))


@pytest.mark.parametrize("name", JOBS)
def test_every_suggestion_is_accepted_for_the_job_that_it_was_made_for(name: str, checks: SpecChecks) -> None:
    document = JOBS[name]
    spec, data = checks.check(document, None)
    for code in CODES[Kind(spec.kind)]:
        made = suggestions(code, spec, shape_of(data))
        assert made, code
        for one in made:
            if one.settings is None:
                assert ":" not in one.text  # it names no setting
                continue
            applied = _applied(document, spec.model_dump(mode="json"), one.settings)
            try:
                after, _ = checks.check(applied, None)
            except SpecError as error:
                pytest.fail(f"{code}: {one.text}: {error}")
            assert after != spec, f"{one.text} changes nothing"


def test_a_setting_in_the_text_is_the_setting_that_is_checked(checks: SpecChecks) -> None:
    """A person copies what the text says: its JSON values are those of the settings."""
    for document in JOBS.values():
        spec, data = checks.check(document, None)
        for code in CODES[Kind(spec.kind)]:
            for one in suggestions(code, spec, shape_of(data)):
                pointer, _, said = one.text.partition(": ")
                value: Any = one.settings
                for step in pointer.split("."):
                    value = value.get(step) if isinstance(value, Mapping) else None
                try:
                    stated, _ = json.JSONDecoder().raw_decode(said)
                except ValueError:
                    continue
                if pointer != "activation":  # of layers, which the text does not repeat
                    assert stated == value, one.text


def test_a_table_is_not_advised_to_shift_its_rows(checks: SpecChecks) -> None:
    assert "augmentation" not in _advice(checks, _classifier("iris"))
    assert "augmentation" in _advice(checks, _classifier("stacked-mnist", preset="fast", augmentation={"max_shift": 0}))


@pytest.mark.parametrize(("field", "value"), [("max_shift", 2), ("flip", True), ("cutout", 2)])
def test_changes_of_images_are_refused_for_a_table(field: str, value: Any, checks: SpecChecks) -> None:
    with pytest.raises(SpecError, match=f"#/augmentation/{field}: is for images, and iris is a table"):
        checks.check(_classifier("iris", augmentation={field: value}), None)


def _advice(checks: SpecChecks, document: Document) -> str:
    spec, data = checks.check(document, None)
    return " ".join(one.text for one in suggestions(FindingCode.OVERFITTING, spec, shape_of(data)))


def _applied(document: Document, resolved: Document, settings: Mapping[str, Any]) -> Document:
    """What a person sends who adds the settings to the spec; another variant replaces an object."""
    made: Document = dict(document)
    for name, value in settings.items():
        if isinstance(value, Mapping):
            below = document.get(name, {})
            below = {"name": below} if isinstance(below, str) else below
            is_other = name != "dataset" and "name" in value and value["name"] != resolved[name]["name"]
            made[name] = dict(value) if is_other else _applied(below, resolved.get(name) or {}, value)
        else:
            made[name] = value
    return made
