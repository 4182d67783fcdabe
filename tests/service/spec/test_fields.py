"""Suggestions for misplaced and misspelt fields, and names as shorthand for objects."""

from __future__ import annotations

import copy
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, ValidationError

from service.errors import Fault, SpecError
from service.schema.base import Label
from service.spec.faults import describe
from service.spec.fields import Model, accepts_shorthand, choices_of, models_of, shorthand, tags_of
from service.spec.presets.definitions import PRESETS
from service.spec.schema import ClassifierSpec, GanSpec, Kind
from service.spec.validation import derive, resolve, spec_hash

MODELS: dict[str, Model] = {"classifier": ClassifierSpec, "gan": GanSpec}
C, G = {"kind": "classifier"}, {"kind": "gan"}


def faults(document: Any) -> dict[str, Fault]:
    with pytest.raises(SpecError) as caught:
        resolve(document)
    return {fault.pointer: fault for fault in caught.value.faults}


@pytest.mark.parametrize(
    ("document", "pointer", "suggestion", "words"),
    [
        (C | {"learning_rate": 1}, "#/learning_rate", "optimizer.learning_rate", "did you mean"),
        (C | {"learningrate": 1}, "#/learningrate", "optimizer.learning_rate", "did you mean"),
        (C | {"lr": 1}, "#/lr", "optimizer.learning_rate", "did you mean"),
        (C | {"units": 1}, "#/units", "layers[].units", "did you mean"),
        (G | {"units": 1}, "#/units", "generator.layers[].units", "did you mean"),
        (C | {"momentum": 1}, "#/momentum", "optimizer.momentum", "did you mean"),
        (G | {"momentum": 1}, "#/momentum", "optimizer.momentum", "(sgd only)"),
        (C | {"beta1": 1}, "#/beta1", "optimizer.beta1", "(adam and adamw only)"),
        (C | {"max_shift": 1}, "#/max_shift", "augmentation.max_shift", "did you mean"),
        (C | {"optimizer": {"max_shift": 1}}, "#/optimizer/max_shift", "augmentation.max_shift", "did you mean"),
        (C | {"optimizer": {"epochs": 1}}, "#/optimizer/epochs", "epochs", "did you mean"),
        (C | {"optimizer": {"lr": 1}}, "#/optimizer/lr", "learning_rate", "did you mean"),
        (C | {"layers": [{"batch_size": 1}]}, "#/layers/0/batch_size", "batch_size", "did you mean"),
        (C | {"patience": 1}, "#/patience", "early_stopping.patience", "did you mean"),
        (G | {"generator": {"learning_rate": 1}}, "#/generator/learning_rate", "generator.optimizer.learning_rate", ""),
        (G | {"dim": 1}, "#/dim", "latent.dim", "did you mean"),
        (C | {"optimizer": {"name": "adam", "momentum": 0.9}}, "#/optimizer/momentum", None, "only sgd has it"),
        (C | {"layers": [{"type": "dropout", "rate": 0.1, "units": 3}]}, "#/layers/0/units", None, "only dense has it"),
        (G | {"max_shift": 1}, "#/max_shift", None, "only a classifier has it"),
        (C | {"latent": {}}, "#/latent", None, "only a gan has it"),
        (C | {"dropout": 0.1}, "#/dropout", None, "'dropout' is a value of 'layers[].type'"),
        (C | {"adam": {}}, "#/adam", None, "'adam' is a value of 'optimizer.name'"),
        (C | {"nothing_like_it": 1}, "#/nothing_like_it", None, "known are accumulate, augmentation"),
        ({"kind": "clasifier"}, "#/kind", "classifier", "did you mean 'classifier'"),
        ({"kind": "GAN"}, "#/kind", "gan", "did you mean 'gan'"),
        ({"Kind": "gan"}, "#/kind", None, "did you mean 'kind' by 'Kind'"),
        (C | {"optimizer": "Adam"}, "#/optimizer", "adam", "did you mean 'adam'"),
        (C | {"layers": [{"units": 10, "activation": "ReLU"}]}, "#/layers/0/activation", "relu", "did you mean"),
    ],
    ids=str,
)
def test_a_fault_suggests_or_explains_the_intended_field_or_value(
    document: Any, pointer: str, suggestion: str | None, words: str
) -> None:
    fault = faults(document)[pointer]
    assert fault.suggestion == suggestion
    assert words in fault.detail


def test_a_misspelt_kind_hides_no_other_fault() -> None:
    assert set(faults({"kind": "clasifier", "epochs": 0, "units": 3})) == {"#/kind", "#/epochs", "#/units"}


def fields_of(model: Model, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The paths of all fields, without list indices."""
    paths: list[tuple[str, ...]] = []
    for name, field in model.model_fields.items():
        paths.append((*prefix, name))
        for nested in models_of(field.annotation):
            paths += fields_of(nested, (*prefix, name))
    return paths


@given(st.sampled_from(["classifier", "gan"]), st.data())
def test_a_nested_field_at_the_top_is_suggested_with_its_path(kind: str, data: st.DataObject) -> None:
    top = set(MODELS[kind].model_fields)
    nested = [path for path in fields_of(MODELS[kind]) if path[-1] not in top | {"type"}]
    path = data.draw(st.sampled_from(nested))
    fault = faults({"kind": kind, path[-1]: None})[f"#/{path[-1]}"]
    assert fault.suggestion is not None
    assert fault.suggestion.split(".")[-1] == path[-1]
    assert tuple(fault.suggestion.replace("[]", "").split(".")) in nested


@given(st.sampled_from(["classifier", "gan"]), st.text(min_size=1, max_size=20))
def test_no_field_name_makes_the_suggestion_fail(kind: str, name: str) -> None:
    if name not in MODELS[kind].model_fields:
        faults_by_pointer = faults({"kind": kind, name: 1, "optimizer": {name: 1}, "layers": [{name: 1}]})
        assert all(item.detail for item in faults_by_pointer.values())


shorthand_documents = st.fixed_dictionaries(
    {"kind": st.just("classifier"), "preset": st.sampled_from(sorted(PRESETS[Kind.CLASSIFIER]))},
    optional={
        "dataset": st.sampled_from(["mnist", "fashion-mnist", "mnist-10k"]),
        "optimizer": st.sampled_from(["adam", "adamw"]),
        "schedule": st.sampled_from(["constant", "one_cycle", "cosine"]),
        "initializer": st.sampled_from(["he", "glorot"]),
        "loss": st.sampled_from(["squared_error", "softmax_cross_entropy", "binary_cross_entropy"]),
    },
)


@given(shorthand_documents)
def test_a_name_is_shorthand_for_an_object_with_that_name(document: dict[str, Any]) -> None:
    before = copy.deepcopy(document)
    objects = {name: value if name in ("kind", "preset") else {"name": value} for name, value in document.items()}
    assert shorthand(ClassifierSpec, document) == objects
    assert shorthand(ClassifierSpec, objects) == objects
    assert resolve(document) == resolve(objects)
    assert spec_hash(resolve(document)) == spec_hash(resolve(objects))
    assert document == before


def test_shorthand_is_accepted_in_nested_objects() -> None:
    spec = resolve(G | {"dataset": "mnist", "generator": {"optimizer": "adamw", "schedule": "cosine"}})
    assert spec == resolve(
        G
        | {"dataset": {"name": "mnist"}, "generator": {"optimizer": {"name": "adamw"}, "schedule": {"name": "cosine"}}}
    )


def test_objects_without_a_name_field_accept_no_shorthand() -> None:
    faults_by_pointer = faults(C | {"layers": ["dense"], "augmentation": "shift", "early_stopping": "val_loss"})
    assert {pointer: fault.code for pointer, fault in faults_by_pointer.items()} == dict.fromkeys(
        ("#/layers/0", "#/augmentation", "#/early_stopping"), "wrong_type"
    )


def test_missing_fields_of_a_named_variant_are_reported() -> None:
    faults_by_pointer = faults(C | {"schedule": "step", "initializer": "uniform"})
    assert {pointer: fault.code for pointer, fault in faults_by_pointer.items()} == dict.fromkeys(
        ("#/schedule/at_epochs", "#/schedule/factor", "#/initializer/scale"), "missing"
    )


def test_overrides_of_a_fork_accept_shorthand() -> None:
    parent = resolve(C).model_dump(mode="json")
    assert derive(parent, {"optimizer": "adam"}, epoch=1) == derive(parent, {"optimizer": {"name": "adam"}}, epoch=1)
    with pytest.raises(SpecError) as caught:
        derive(parent, {"optimizer": "adma", "learning_rate": 1}, epoch=1)
    assert {fault.pointer: fault.suggestion for fault in caught.value.faults} == {
        "#/optimizer": "adam",
        "#/learning_rate": "optimizer.learning_rate",
    }


def test_every_variant_with_a_name_is_among_the_choices_of_its_field() -> None:
    for model in MODELS.values():
        for field in model.model_fields.values():
            if accepts_shorthand(field.annotation) and choices_of(field.annotation):
                tags = {tag for variant in models_of(field.annotation) for tag in tags_of(variant)}
                assert tags <= set(choices_of(field.annotation))


def test_a_text_of_another_form_is_told_the_form_or_what_it_may_not_have() -> None:
    class Marked(BaseModel):
        color: Annotated[str, Field(pattern="^#[0-9a-f]{6}$")]
        label: Label

    document = {"color": "red", "label": "a\x00b"}
    with pytest.raises(ValidationError) as caught:
        Marked.model_validate(document)
    details = {fault.pointer: fault.detail for fault in describe(Marked, caught.value, document)}
    assert details["#/color"] == "does not have the form ^#[0-9a-f]{6}$"
    assert details["#/label"].startswith("has a character that is not allowed here: a control character")
