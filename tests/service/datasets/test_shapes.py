from __future__ import annotations

from dataclasses import replace

import pytest

from service.datasets.builtins import BUILT_IN
from service.datasets.shapes import default_preset

MNIST = BUILT_IN["mnist-10k"].info
PHOTO_REPORT = {"channels": {"value": 1, "reason": "no image has colours"}}


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        ("mnist-10k", "fast"),
        ("mnist", "fast"),
        ("fashion-mnist", "fast"),
        ("stacked-mnist", "fast"),
        ("iris", "table"),
        ("breast-cancer", "table"),
    ],
)
def test_each_built_in_dataset_has_a_suitable_default_preset(name: str, preset: str) -> None:
    assert default_preset(BUILT_IN[name].info) == preset


@pytest.mark.parametrize(
    ("shape", "report", "preset"),
    [
        ((28, 28), None, "fast"),
        ((8, 8), None, "fast"),
        ((28, 28), {}, "fast"),
        ((28, 28), PHOTO_REPORT, "conv"),
        ((28, 28, 3), None, "conv"),
        ((16, 16, 3), None, "conv"),
        ((16, 16, 3), PHOTO_REPORT, "conv"),
        ((32, 32), None, "fast"),
        ((28, 28), {"mean_level": 0.3}, "conv"),
        ((28, 28), {"mean_level": 0.2}, "fast"),
        ((), None, "fast"),
    ],
)
def test_the_default_preset_of_an_upload_depends_on_shape_and_report(
    shape: tuple[int, ...], report: object, preset: str
) -> None:
    info = replace(MNIST, image_shape=shape, report=report, upload_id="upload_1")
    assert default_preset(info) == preset
