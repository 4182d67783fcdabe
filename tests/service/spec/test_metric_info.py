from __future__ import annotations

import json
import re
from itertools import chain
from pathlib import Path

import pytest

import service.web
from service.spec import metric_info
from service.spec.metric_info import METRICS, describe, number


def test_a_layers_metric_is_described_like_its_base_metric() -> None:
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
        ("frechet_distance", 12_345.6, "12,346"),
        ("val_loss", 123_456.7, "123,457"),
        ("val_loss", 1.5e7, "1.50e+07"),
        ("val_loss", None, "-"),
        ("cpu_seconds", 1.2345, "1.23 s"),
        ("cpu_seconds", 3600.4, "3600 s"),
        ("memory_bytes", 112_345_678, "112 MB"),
        ("memory_bytes", 2_500_000_000, "2.5 GB"),
        ("memory_bytes", 12, "12 B"),
    ],
)
def test_a_value_is_formatted_in_its_unit(name: str, value: float | None, text: str) -> None:
    assert number(name, value) == text


def test_every_metric_of_the_page_tiles_is_described() -> None:
    assert {*metric_info.TILES, *chain(*metric_info.KEY_METRICS.values())} <= METRICS.keys()


def test_the_palette_has_a_colour_for_each_metric() -> None:
    assert {info.series for info in METRICS.values()} <= set(range(1, 9))
    json.dumps(metric_info.documents())


def test_the_palette_is_that_of_the_pages_light_theme() -> None:
    css = (Path(service.web.__file__).parent / "static" / "common" / "app.css").read_text()
    light = css.partition('[data-theme="dark"]')[0]
    assert tuple(re.findall(r"--series-\d: (#[0-9a-f]{6});", light)) == metric_info.PALETTE


def test_metrics_that_share_a_chart_differ_in_colour() -> None:
    for chart, names in metric_info.CHARTS.items():
        for kind in metric_info.KEY_METRICS:
            own = [name for name in names if kind in describe(name).kinds and name in metric_info.METRICS]
            assert len({describe(name).series for name in own}) == len(own), chart.title
