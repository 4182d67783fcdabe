"""Every suggestion of every finding is a valid change of the job that it is made for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from service import kinds
from service.application.specs import SpecChecks
from service.cli.commands.training import settings_of
from service.datasets.builtins import BUILT_IN
from service.datasets.repository import DatasetRepository
from service.datasets.shapes import shape_of
from service.diagnosis.advice import suggestions
from service.errors import SpecError
from service.runtime.settings import Auth, Settings
from service.schema.findings import assignments
from service.spec.presets.definitions import PRESETS
from service.spec.schema import Kind
from service.spec.strict_json import overlay
from service.spec.validation import resolve
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
def test_every_suggestion_as_written_is_valid_for_its_job(name: str, checks: SpecChecks) -> None:
    document = JOBS[name]
    spec, data, _ = checks.check(document, None)
    for code in kinds.of(spec.kind).findings:
        suggested = suggestions(code, spec, shape_of(data))
        assert suggested, code
        for advice in suggested:
            if not advice.settings:
                assert advice.reason
                continue
            written = settings_of(assignments(advice.settings))
            try:
                changed_spec, *_ = checks.check(overlay(document, written), None)
            except SpecError as error:
                pytest.fail(f"{code}: {advice.text}: {error}")
            assert changed_spec != spec, f"{advice.text} changes nothing"


def _settings(document: Document, code: FindingCode, **case: bool) -> list[Mapping[str, Any]]:
    shape = shape_of(BUILT_IN["mnist-10k"].info)
    return [advice.settings for advice in suggestions(code, resolve(document), shape, **case)]


@pytest.mark.parametrize("code", [FindingCode.MODE_COLLAPSE, FindingCode.VANISHING_GRADIENT])
def test_a_generator_that_cannot_move_is_given_larger_weights_and_adam_together(code: FindingCode) -> None:
    adam = {"optimizer.name": "adam", "optimizer.beta1": 0.5}
    classic = _gan(preset="classic")
    assert _settings(classic, code, is_stuck=True) == [{"preset": "stable"}, {"initializer": "glorot"} | adam]
    assert _settings(classic | {"optimizer": "adam"}, code) == [{"preset": "stable"}, {"initializer": "glorot"}]
    assert _settings(classic | {"initializer": "glorot"}, code) == [{"preset": "stable"}, adam]
    assert _settings(classic, code, is_stuck=True, is_fork=True) == [{"preset": "stable"}]


def test_a_discriminator_that_wins_is_given_a_limit_first() -> None:
    lesson = _gan(discriminator={"r1": 0}, optimizer={"name": "adam", "beta1": 0.9, "learning_rate": 0.002})
    for code in (FindingCode.MODE_COLLAPSE, FindingCode.DISCRIMINATOR_WINS):
        limit, momentum, *_, rate = _settings(lesson, code)
        assert (limit, momentum) == ({"discriminator.r1": 1}, {"optimizer.beta1": 0.5})
        assert rate == {"optimizer.learning_rate": 0.00067}


def test_no_initializer_is_suggested_for_a_fork() -> None:
    for kind in Kind:
        for code in kinds.of(kind).findings:
            for document in JOBS.values():
                if document["kind"] == kind and document["dataset"]["name"] == "mnist-10k":
                    assert not any("initializer" in settings for settings in _settings(document, code, is_fork=True))


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
