from __future__ import annotations

import json

import pytest

from service.contract import metric_info
from service.contract.metric_info import METRICS, describe, number
from service.web.resources.pages import _TILES


def test_a_layers_metric_is_described_by_its_base() -> None:
    assert describe("grad_norm/layers.0").label == "gradient norm · layers.0"
    assert describe("dead_units/generator.layers.2").percent
    assert describe("something_new").label == "something new"


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("val_accuracy", 0.96066, "96.07%"),
        ("saturation/layers.0", 0.5, "50.00%"),
        ("train_loss", 0.48284, "0.4828"),
        ("grad_norm", 0.00001234, "1.23e-05"),
        ("frechet_distance", 0.0, "0"),
        ("val_loss", None, "-"),
    ],
)
def test_a_value_is_written_in_its_unit(name: str, value: float | None, text: str) -> None:
    assert number(name, value) == text


def test_every_metric_that_a_page_singles_out_is_described() -> None:
    assert set(_TILES) <= METRICS.keys()


def test_the_palette_has_a_colour_for_each() -> None:
    assert {info.series for info in METRICS.values()} <= set(range(1, 9))
    json.dumps(metric_info.documents())
