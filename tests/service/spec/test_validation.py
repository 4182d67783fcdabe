from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import Fault, MalformedJson, SpecError
from service.schema import costs
from service.schema.layer_shapes import Shape
from service.spec.dataset_checks import check_fit
from service.spec.estimation.networks import networks
from service.spec.presets.adaptation import match_output_to_dataset
from service.spec.presets.definitions import PRESETS
from service.spec.schema import Adam, ClassifierSpec, GanSpec, Kind, Sgd
from service.spec.strict_json import canonical, parse_json
from service.spec.validation import read_resolved, resolve, resolved_hash, spec_hash
from service.states import DatasetKind

DIGITS = Shape(rows=28, columns=28, classes=10, train_count=8500)
IRIS = Shape(rows=1, columns=4, kind=DatasetKind.TABLE, classes=3, train_count=120)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3)
    ),
    max_leaves=8,
)


def faults(document: Any) -> dict[str, Fault]:
    with pytest.raises(SpecError) as caught:
        check_fit(resolve(document), DIGITS)
    return {fault.pointer: fault for fault in caught.value.faults}


@given(json_values)
def test_json_is_returned_as_it_was_sent(document: Any) -> None:
    assert parse_json(json.dumps(document).encode()) == document


@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_parsed_or_rejected_with_a_position(body: bytes) -> None:
    try:
        parse_json(body)
    except MalformedJson as error:
        assert error.line >= 1
        assert error.column >= 1


@pytest.mark.parametrize(
    ("body", "line", "column", "words"),
    [
        (b'{"a": 1,\n  "b": x}', 2, 8, "Expecting value"),
        (b'{"a": 1, "a": 2}', 1, 2, "appears twice"),
        (b'{"a": NaN}', 1, 7, "not JSON"),
        (b'{\n"a": 1e999}', 2, 6, "too large"),
        (b'{"a": 123456789012345678901234567890}', 1, 7, "more than 20 digits"),
        (b'{"a": "\xff"}', 1, 8, "UTF-8"),
        (b"[" * 40 + b"]" * 40, 1, 1, "nested"),
        (b"[" * 100_000, 1, 1, "nested"),
        (b'{"a": "\\ud800"}', 1, 8, "surrogate"),
        (b"", 1, 1, "Expecting value"),
    ],
)
def test_invalid_json_is_rejected_with_its_position(body: bytes, line: int, column: int, words: str) -> None:
    with pytest.raises(MalformedJson, match=words) as caught:
        parse_json(body)
    assert (caught.value.line, caught.value.column) == (line, column)


@pytest.mark.parametrize(("kind", "preset"), [(kind, name) for kind in PRESETS for name in PRESETS[kind]])
def test_every_preset_is_a_spec_that_fits_its_dataset(kind: Kind, preset: str) -> None:
    spec = resolve({"kind": kind, "preset": preset})
    tables = {"classifier": ("iris", IRIS), "regressor": ("diabetes", replace(IRIS, columns=10, classes=0))}
    name, shape = tables[kind] if preset == "table" else ("mnist-10k", DIGITS)
    check_fit(spec, shape)
    assert spec.dataset.name == name
    assert read_resolved(spec.model_dump(mode="json")) == spec


def test_the_kind_alone_is_a_complete_spec() -> None:
    assert resolve({"kind": "classifier"}).preset == "fast"
    assert resolve({"kind": "gan"}).preset == "stable"


def test_a_given_field_overrides_the_presets() -> None:
    spec = resolve(
        {"kind": "classifier", "epochs": 3, "optimizer": {"learning_rate": 0.5}, "dataset": {"name": "mnist"}}
    )
    assert isinstance(spec, ClassifierSpec)
    assert spec.epochs == 3
    assert isinstance(spec.optimizer, Sgd)
    assert (spec.optimizer.learning_rate, spec.optimizer.momentum) == (0.5, 0.9)
    assert (spec.dataset.name, spec.dataset.scale) == ("mnist", resolve({"kind": "classifier"}).dataset.scale)


def test_another_variant_replaces_the_presets_options() -> None:
    spec = resolve({"kind": "classifier", "optimizer": {"name": "adam", "learning_rate": 0.1}})
    assert spec.optimizer == Adam(name="adam", learning_rate=0.1)


def test_the_networks_of_a_gan_can_be_overridden_in_part() -> None:
    spec = resolve({"kind": "gan", "discriminator": {"skip_every": 3}})
    assert isinstance(spec, GanSpec)
    assert spec.discriminator.skip_every == 3
    assert len(spec.discriminator.layers) == 3


def test_all_faults_are_reported_at_once_each_with_its_pointer() -> None:
    faults_by_pointer = faults(
        {
            "kind": "classifier",
            "optimzer": {},
            "epochs": 0,
            "batch_size": "many",
            "shuffle": 1,
            "tags": ["fine", 2],
            "optimizer": {"name": "adam", "learning_rat": 1},
            "layers": [{"units": 5, "activation": "rel"}, {"type": "dropuot"}, {"type": "dropout", "rat": 0.1}],
        }
    )
    assert {pointer: fault.code for pointer, fault in faults_by_pointer.items()} == {
        "#/optimzer": "unknown_field",
        "#/epochs": "out_of_range",
        "#/batch_size": "wrong_type",
        "#/shuffle": "wrong_type",
        "#/tags/1": "wrong_type",
        "#/optimizer/learning_rat": "unknown_field",
        "#/layers/0/activation": "unknown_value",
        "#/layers/1/type": "unknown_value",
        "#/layers/2/rate": "missing",
        "#/layers/2/rat": "unknown_field",
    }
    assert faults_by_pointer["#/optimzer"].suggestion == "optimizer"
    assert faults_by_pointer["#/optimizer/learning_rat"].suggestion == "learning_rate"
    assert faults_by_pointer["#/layers/1/type"].suggestion == "dropout"


def test_an_unknown_preset_hides_no_other_fault() -> None:
    faults_by_pointer = faults({"kind": "gan", "preset": "sable", "epochs": -1, "foo": 2})
    assert set(faults_by_pointer) == {"#/preset", "#/epochs", "#/foo"}
    assert faults_by_pointer["#/preset"].suggestion == "stable"


@pytest.mark.parametrize(
    ("document", "pointer", "code"),
    [
        ([], "#", "wrong_type"),
        ({}, "#/kind", "missing"),
        ({"kind": "classifer"}, "#/kind", "unknown_kind"),
        ({"kind": ["gan"]}, "#/kind", "unknown_kind"),
        ({"kind": "gan", "preset": "stabel"}, "#/preset", "unknown_preset"),
        ({"kind": "gan", "preset": None}, "#/preset", "unknown_preset"),
        ({"kind": "classifier", "optimizer": {"name": "admm"}}, "#/optimizer/name", "unknown_value"),
        ({"kind": "classifier", "optimizer": None}, "#/optimizer", "wrong_type"),
        ({"kind": "classifier", "layers": []}, "#/layers", "out_of_range"),
        ({"kind": "classifier", "layers": [{"units": 9, "activation": "softmax"}]}, "#/layers/0/units", "wrong_shape"),
        ({"kind": "classifier", "layers": [{"type": "dropout", "rate": 0.1}]}, "#/layers/0", "wrong_shape"),
        ({"kind": "classifier", "dataset": {"scale": [1, 0]}}, "#/dataset/scale", "out_of_range"),
        ({"kind": "classifier", "dataset": {"scale": [0]}}, "#/dataset/scale", "out_of_range"),
        ({"kind": "classifier", "name": "two\nlines"}, "#/name", "out_of_range"),
        ({"kind": "classifier", "seed": -1}, "#/seed", "out_of_range"),
        ({"kind": "classifier", "seed": True}, "#/seed", "wrong_type"),
        ({"kind": "classifier", "priority": 10}, "#/priority", "out_of_range"),
        ({"kind": "classifier", "a/b~c": 1}, "#/a~1b~0c", "unknown_field"),
        ({"kind": "classifier", "optimizer": {"momentum": 0, "nesterov": True}}, "#/optimizer/nesterov", "unsuitable"),
        ({"kind": "gan", "generator": {"optimizer": {"name": "sgd", "learning_rate": 0.1, "nesterov": True}}},
         "#/generator/optimizer/nesterov", "unsuitable"),
        ({"kind": "classifier", "optimizer": {"weight_decay": -1}}, "#/optimizer/weight_decay", "out_of_range"),
        ({"kind": "classifier", "optimizer": {"clip_norm": 0}}, "#/optimizer/clip_norm", "out_of_range"),
        ({"kind": "classifier", "optimizer": {"name": "adam", "weight_decay": 0.1}},
         "#/optimizer/weight_decay", "unknown_field"),
        ({"kind": "classifier", "schedule": {"name": "cosine", "warmup_fraction": 1}},
         "#/schedule/warmup_fraction", "out_of_range"),
        ({"kind": "classifier", "augmentation": {"max_shift": 1.5}}, "#/augmentation/max_shift", "wrong_type"),
        ({"kind": "classifier", "augmentation": {"shift": 1}}, "#/augmentation/shift", "unknown_field"),
        ({"kind": "classifier", "average_decay": 1}, "#/average_decay", "out_of_range"),
        ({"kind": "classifier", "early_stopping": {}}, "#/early_stopping/patience", "missing"),
        ({"kind": "classifier", "early_stopping": {"patience": 0}}, "#/early_stopping/patience", "out_of_range"),
        ({"kind": "classifier", "early_stopping": {"patience": 1, "metric": "loss"}},
         "#/early_stopping/metric", "unknown_value"),
        ({"kind": "gan", "early_stopping": {"patience": 1}}, "#/early_stopping", "unknown_field"),
        ({"kind": "gan", "latent": {"dim": 0}}, "#/latent/dim", "out_of_range"),
        ({"kind": "gan", "discriminator": {"layers": [{"units": 2, "activation": "sigmoid"}]}},
         "#/discriminator/layers/0/units", "wrong_shape"),
        ({"kind": "gan", "generator": {"layers": [{"units": 10, "activation": "tanh"}]}},
         "#/generator/layers/0/units", "wrong_shape"),
        ({"kind": "gan", "loss": {"name": "softmax_cross_entropy"}}, "#/loss/name", "unknown_value"),
    ],
)  # fmt: skip
def test_each_fault_has_the_pointer_of_its_field_and_a_code(document: Any, pointer: str, code: str) -> None:
    assert faults(document)[pointer].code == code


def test_images_cannot_be_shifted_by_their_whole_height() -> None:
    spec = resolve({"kind": "classifier", "augmentation": {"max_shift": 8}})
    check_fit(spec, DIGITS)
    with pytest.raises(SpecError) as caught:
        check_fit(spec, replace(DIGITS, rows=8))
    assert [fault.pointer for fault in caught.value.faults] == ["#/augmentation/max_shift"]


def test_a_network_with_too_many_parameters_is_refused() -> None:
    wide = [{"units": 4096, "activation": "relu"}] * 4 + [{"units": 10, "activation": "softmax"}]
    assert faults({"kind": "classifier", "layers": wide})["#"].code == "too_large"


@given(json_values)
def test_no_document_makes_validation_fail_unexpectedly(document: Any) -> None:
    for sent in (document, {"kind": "classifier", "optimizer": document}, {"kind": "gan", "generator": document}):
        try:
            check_fit(resolve(sent), DIGITS)
        except SpecError as error:
            assert error.faults


def test_parameters_are_weights_and_biases() -> None:
    assert costs.parameters(networks(resolve({"kind": "classifier"}), DIGITS)) == 784 * 392 + 392 + 392 * 10 + 10


def test_the_spec_hash_ignores_what_changes_no_bit_of_a_job() -> None:
    plain = spec_hash(resolve({"kind": "classifier"}))
    labels = {"name": "n", "tags": ["t"], "priority": 9, "reuse": "exact", "budget": {"seconds": 60}}
    assert spec_hash(resolve({"kind": "classifier", **labels})) == plain
    assert spec_hash(resolve({"kind": "classifier", "seed": 1})) != plain


def with_one_change(value: Any) -> Iterator[Any]:
    """Copies of a document, each with another value changed."""
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from ({**value, name: changed} for changed in with_one_change(item))
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from ([*value[:index], changed, *value[index + 1 :]] for changed in with_one_change(item))
    else:
        yield "changed"


@pytest.mark.parametrize("kind", Kind)
def test_the_spec_hash_depends_on_every_setting_that_is_not_exempt(kind: Kind) -> None:
    exempt = {"name", "tags", "priority", "preset", "reuse", "budget"}
    spec = resolve({"kind": kind})
    document = spec.model_dump(mode="json")
    assert exempt < document.keys()
    hashes = {spec_hash(spec)}
    for name, value in document.items():
        for changed in with_one_change(value):
            changed_hash = resolved_hash({**document, name: changed})
            assert (changed_hash == spec_hash(spec)) == (name in exempt), name
            hashes.add(changed_hash)
    assert len(hashes) == 1 + sum(1 for name in document.keys() - exempt for _ in with_one_change(document[name]))


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": {"weight_decay": 0.1}},
        {"augmentation": {"max_shift": 1}},
        {"average_decay": 0.9},
        {"early_stopping": {"patience": 2}},
    ],
    ids=str,
)
def test_the_spec_hash_depends_on_optional_settings_of_the_training(changes: dict[str, Any]) -> None:
    spec = {"kind": "classifier", "preset": "classic"}
    assert spec_hash(resolve(spec | changes)) != spec_hash(resolve(spec))


@pytest.mark.parametrize("kind", ["classifier", "gan"])
def test_the_former_name_of_a_preset_gives_the_same_spec_and_hash(kind: str) -> None:
    former, current = (resolve({"kind": kind, "preset": name}) for name in ("seed", "classic"))
    assert former == current
    assert current.preset == "classic"
    assert spec_hash(former) == spec_hash(current)


def test_a_spec_stored_before_a_field_was_added_can_still_be_read() -> None:
    spec = resolve({"kind": "classifier", "preset": "classic"})
    stored = spec.model_dump(mode="json")
    for name in ("augmentation", "average_decay", "early_stopping"):
        del stored[name]
    del stored["optimizer"]["nesterov"], stored["optimizer"]["clip_norm"]
    assert read_resolved(stored) == spec


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.integers(), max_size=5))
def test_the_order_of_fields_does_not_change_the_canonical_text(document: dict[str, int]) -> None:
    assert canonical(document) == canonical(dict(reversed(document.items())))


def test_the_specs_in_the_documentation_are_valid() -> None:
    root = Path(__file__).parents[3]
    text = "".join((root / name).read_text() for name in ("README.md", "docs/guide.md", "docs/spec.md"))
    blocks = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    inline = re.findall(r"-d '(\{\"kind\".*?\})'", text + (root / "docs/api.md").read_text())
    js_blocks = re.findall(r"```js\n(.*?)```", text, re.DOTALL)
    spec_pattern = re.compile(r"^\{.*?\}$(?=\n\{|\n*\Z)", re.DOTALL | re.MULTILINE)
    js_specs = [spec for block in js_blocks for spec in spec_pattern.findall(block)]
    assert [len(specs) for specs in (blocks, inline, js_specs)] == [1, 4, 4]
    for spec_text in (*blocks, *inline, *js_specs):
        document = parse_json(spec_text.encode())
        check_fit(match_output_to_dataset(resolve(document), document, DIGITS), DIGITS)
