from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from service.jobs.queries import columns, sorting
from service.jobs.queries.columns import FACTS, Type, UnknownColumn, parse
from service.spec.metric_info import METRICS
from service.spec.presets.definitions import PRESETS
from service.spec.validation import resolve
from service.storage.tables import Job


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from leaves(item, (*path, name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from leaves(item, (*path, str(index)))
    else:
        yield path, value


@pytest.mark.parametrize(("kind", "preset"), [(kind, preset) for kind in PRESETS for preset in PRESETS[kind]])
def test_every_setting_of_every_preset_can_be_a_column(kind: Any, preset: str) -> None:
    resolved = resolve({"kind": kind, "preset": preset}).model_dump(mode="json")
    job = Job(resolved=resolved, kind=kind, epochs=resolved["epochs"], priority=resolved["priority"], tags=[])
    for path, value in leaves(resolved):
        assert parse("/" + "/".join(path)).value(job) == value
        assert parse(".".join(path)).value(job) == value


@pytest.mark.parametrize(
    ("name", "type_", "sortable"),
    [
        ("optimizer.learning_rate", Type.NUMBER, True),
        ("generator.optimizer.learning_rate", Type.NUMBER, True),
        ("batch_size", Type.NUMBER, True),
        ("optimizer.name", Type.TEXT, True),
        ("dataset.name", Type.TEXT, True),
        ("layers.0.activation", Type.TEXT, True),
        ("shuffle", Type.FLAG, False),
        ("layers", Type.JSON, False),
        ("optimizer", Type.JSON, False),
        ("val_accuracy", Type.METRIC, True),
        ("min:d_loss", Type.METRIC, True),
        ("grad_norm/layers.0", Type.METRIC, True),
        ("duration", Type.SECONDS, True),
        ("tags", Type.JSON, False),
    ],
)
def test_a_column_has_a_type_and_may_be_sortable(name: str, type_: Type, sortable: bool) -> None:
    assert parse(name).type is type_
    assert sorting.of_column(name) == (name if sortable else None)


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("optimizer.learning_rat", "optimizer.learning_rate"),
        ("pre_set", "preset"),
        ("val_acuracy", "val_accuracy"),
        ("best:val_acc", "best:val_accuracy"),
        ("best:d_loss", "min:d_loss"),
        ("layers.0.unit", "layers.0.units"),
        ("/optimizer/rate", "optimizer"),
        ("zzzzzzzzzz", None),
        ("layers.x.units", "layers.0.units"),
        ("best:", "best:train_loss"),  # the first of many
        ("", None),
    ],
)
def test_an_unknown_column_is_refused_with_a_suggestion_where_one_is_similar(name: str, suggestion: str | None) -> None:
    with pytest.raises(UnknownColumn) as caught:
        parse(name)
    assert caught.value.suggestion == suggestion
    if suggestion is not None:
        parse(suggestion)


def test_the_best_value_of_a_metric_depends_on_its_goal() -> None:
    job = Job(
        metrics={"val_loss": 0.4, "val_accuracy": 0.7},
        extremes={"val_loss": {"min": 0.1, "max": 0.9}, "val_accuracy": {"min": 0.2, "max": 0.8}, "d_loss": {"min": 1}},
    )
    names = ("val_loss", "last:val_loss", "best:val_loss", "max:val_loss", "best:val_accuracy", "min:d_loss", "g_loss")
    assert [parse(name).value(job) for name in names] == [0.4, 0.4, 0.1, 0.9, 0.8, 1, None]
    assert [parse(name).better for name in ("best:val_loss", "val_accuracy", "max:val_loss", "d_loss")] == [
        "min",
        "max",
        None,
        None,
    ]
    assert {parse(name).metric for name in METRICS} == set(METRICS)


def test_occurring_columns_are_listed_with_their_number_of_different_values() -> None:
    specs = [
        resolve({"kind": "classifier", "optimizer": {"learning_rate": rate}}).model_dump(mode="json")
        for rate in (0.1, 0.2)
    ]
    specs.append(resolve({"kind": "gan"}).model_dump(mode="json"))
    listed = {column.name: values for column, values in columns.occurring(specs, {"val_loss", "d_loss", "strange"})}
    assert set(FACTS) <= set(listed)
    assert {"val_loss", "best:val_loss", "d_loss", "min:d_loss", "max:d_loss"} <= set(listed)
    assert not {"best:d_loss", "strange", "kind.name", "val_accuracy"} & set(listed)
    assert (listed["optimizer.learning_rate"], listed["dtype"], listed["layers.0.units"]) == (3, 1, 2)
    for name in listed:
        parse(name)
