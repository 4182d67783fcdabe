"""Every suggestion of every finding is a valid change of the job that it is made for."""

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
def test_every_suggestion_is_valid_for_its_job(name: str, checks: SpecChecks) -> None:
    document = JOBS[name]
    spec, data, _ = checks.check(document, None)
    for code in CODES[Kind(spec.kind)]:
        suggested = suggestions(code, spec, shape_of(data))
        assert suggested, code
        for suggestion in suggested:
            if suggestion.settings is None:
                assert ":" not in suggestion.text  # it names no setting
                continue
            applied = _with_settings(document, spec.model_dump(mode="json"), suggestion.settings)
            try:
                changed_spec, *_ = checks.check(applied, None)
            except SpecError as error:
                pytest.fail(f"{code}: {suggestion.text}: {error}")
            assert changed_spec != spec, f"{suggestion.text} changes nothing"


def test_the_values_in_a_suggestions_text_equal_its_settings(checks: SpecChecks) -> None:
    """Users copy from the text, so its JSON values must be those of the settings."""
    for document in JOBS.values():
        spec, data, _ = checks.check(document, None)
        for code in CODES[Kind(spec.kind)]:
            for suggestion in suggestions(code, spec, shape_of(data)):
                pointer, _, stated_text = suggestion.text.partition(": ")
                value: Any = suggestion.settings
                for step in pointer.split("."):
                    value = value.get(step) if isinstance(value, Mapping) else None
                try:
                    stated, _ = json.JSONDecoder().raw_decode(stated_text)
                except ValueError:
                    continue
                if pointer != "activation":  # of the layers, which the text does not repeat
                    assert stated == value, suggestion.text


def test_augmentation_is_suggested_for_images_but_not_for_tables(checks: SpecChecks) -> None:
    assert "augmentation" not in _advice(checks, _classifier("iris"))
    assert "augmentation" in _advice(checks, _classifier("stacked-mnist", preset="fast", augmentation={"max_shift": 0}))


@pytest.mark.parametrize(("field", "value"), [("max_shift", 2), ("flip", True), ("cutout", 2)])
def test_image_augmentations_are_refused_for_a_table(field: str, value: Any, checks: SpecChecks) -> None:
    with pytest.raises(SpecError, match=f"#/augmentation/{field}: is for images, and iris is a table"):
        checks.check(_classifier("iris", augmentation={field: value}), None)


def _advice(checks: SpecChecks, document: Document) -> str:
    spec, data, _ = checks.check(document, None)
    return " ".join(suggestion.text for suggestion in suggestions(FindingCode.OVERFITTING, spec, shape_of(data)))


def _with_settings(document: Document, resolved: Document, settings: Mapping[str, Any]) -> Document:
    """The spec after a user adds the settings; an object of another variant replaces the old one."""
    changed: Document = dict(document)
    for name, value in settings.items():
        if isinstance(value, Mapping):
            nested = document.get(name, {})
            nested = {"name": nested} if isinstance(nested, str) else nested
            is_other_variant = name != "dataset" and "name" in value and value["name"] != resolved[name]["name"]
            changed[name] = dict(value) if is_other_variant else _with_settings(nested, resolved.get(name) or {}, value)
        else:
            changed[name] = value
    return changed
