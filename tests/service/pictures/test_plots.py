import io
import re
import subprocess
import sys
import threading
import xml.etree.ElementTree as ET
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from service.pictures import plots
from service.spec.metric_info import PALETTE

BLUE, VERMILLION, GREEN, PURPLE = PALETTE[:4]
EPOCHS = list(range(1, 31))
FALLING: list[float | None] = [1 / epoch for epoch in EPOCHS]
RISING: list[float | None] = [1 - 0.5 / epoch for epoch in EPOCHS]
CLASSIFIER = {"train_loss": FALLING, "val_loss": RISING, "train_accuracy": RISING, "val_accuracy": FALLING}
GAN = {"d_loss": FALLING, "g_loss": RISING, "d_real": RISING, "d_fake": FALLING}


CLASSIFIER_HEALTH = CLASSIFIER | {"grad_norm/layers.0": FALLING, "grad_norm": FALLING, "dead_units": RISING}
EVALUATED: list[float | None] = [500 / epoch if epoch % 5 == 0 else None for epoch in EPOCHS]
GAN_HEALTH = GAN | {
    "frechet_distance": EVALUATED,
    "mode_coverage": [j and 0.9 for j in EVALUATED],
    "g_grad_norm": FALLING,
}


def read_png(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


def count_ink(content: bytes, colour: str) -> int:
    rgb = np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)])
    return int((np.abs(read_png(content).astype(int) - rgb).max(axis=2) < 12).sum())


@pytest.mark.parametrize(("kind", "series"), [("classifier", CLASSIFIER), ("gan", GAN)])
def test_curves_show_both_lines_of_each_panel(kind: str, series: dict[str, list[float | None]]) -> None:
    content = plots.curves(kind, EPOCHS, series, title="a title", best_epoch=20)
    assert read_png(content).shape == (504, 1200, 3)
    for colour in (BLUE, VERMILLION) if kind == "classifier" else (BLUE, VERMILLION, GREEN, PURPLE):
        assert count_ink(content, colour) > 400


def panel_titles(svg: str) -> list[list[str]]:
    """The titles of the panels, row by row."""
    rows: dict[str, dict[float, str]] = {}
    known = {title for panels in plots.PANELS.values() for title in panels}
    for panel in svg.split('<g id="axes_')[1:]:
        corner = re.search(r'<path d="M (\S+) (\S+)', panel)
        assert corner is not None
        [title] = known.intersection(re.findall("<!-- (.*?) -->", panel))
        rows.setdefault(corner[2], {})[float(corner[1])] = title
    return [[title for _, title in sorted(rows[y].items())] for y in sorted(rows, key=float)]


@pytest.mark.parametrize(
    ("kind", "series", "size", "titles"),
    [
        (
            "classifier",
            CLASSIFIER_HEALTH,
            (720, 568.8),
            [["Loss", "Accuracy"], ["Gradient norm", "Dead units and saturation"]],
        ),
        (
            "gan",
            GAN_HEALTH,
            (1080, 568.8),
            [
                ["GAN losses", "Discriminator outputs", "Fréchet distance"],
                ["Quality of the samples", "Gradient norm"],
            ],
        ),
    ],
)
def test_panels_of_health_metrics_follow_those_of_the_curves(
    kind: str, series: dict[str, list[float | None]], size: tuple[float, float], titles: list[list[str]]
) -> None:
    svg = plots.curves(kind, EPOCHS, series, title="a title", best_epoch=20, fmt="svg").decode()
    width, height = size
    assert f'width="{width:g}pt" height="{height:g}pt"' in svg
    assert panel_titles(svg) == titles
    png = read_png(plots.curves(kind, EPOCHS, series, title="a title", best_epoch=20))
    assert png.shape == (round(height / 0.6), round(width / 0.6), 3)  # 120 dpi


def test_sparse_metrics_are_drawn_as_lines() -> None:
    lone = plots.curves("gan", EPOCHS, GAN | {"frechet_distance": [*[None] * 29, 300.0]}, title="")
    repeated = plots.curves("gan", EPOCHS, GAN | {"frechet_distance": EVALUATED}, title="")
    assert count_ink(repeated, BLUE) > count_ink(lone, BLUE) + 300


@pytest.mark.parametrize(("is_error", "colour"), [(True, "#D55E00"), (False, "#E69F00")])
def test_findings_are_drawn_as_bars_over_their_epochs(is_error: bool, colour: str) -> None:
    def ink(*marks: plots.Mark) -> int:
        return count_ink(plots.curves("gan", EPOCHS, {}, title="", marks=marks), colour)

    late = plots.Mark(label="mode collapse", since=20, until=None, is_error=is_error)
    whole = plots.Mark(label="mode collapse", since=1, until=None, is_error=is_error)
    over = plots.Mark(label="mode collapse", since=20, until=22, is_error=is_error)
    assert ink() == 0 < ink(over) < ink(late) < ink(whole)


def test_nearly_constant_values_look_constant() -> None:
    steady: list[float | None] = [888.0 + 0.001 * epoch for epoch in EPOCHS]
    content = plots.curves("gan", EPOCHS, {"d_loss": steady}, title="")
    rows = np.flatnonzero((np.abs(read_png(content).astype(int) - [0, 0x67, 0xA5]).max(axis=2) < 12)[:, 100:400].any(1))
    assert np.ptp(rows) < 15  # of 400 rows: the line does not rise from the bottom to the top


@pytest.mark.parametrize("fmt", ["png", "svg"])
def test_the_same_values_give_the_same_plot(fmt: Literal["png", "svg"]) -> None:
    matrix = np.eye(10, dtype=int) * 100
    assert plots.curves("classifier", EPOCHS, CLASSIFIER, title="t", fmt=fmt) == plots.curves(
        "classifier", EPOCHS, CLASSIFIER, title="t", fmt=fmt
    )
    assert plots.confusion(matrix, title="t", fmt=fmt) == plots.confusion(matrix, title="t", fmt=fmt)


def test_an_svg_is_well_formed_and_has_no_date() -> None:
    content = plots.curves("gan", EPOCHS, GAN, title="<&>", fmt="svg")
    assert ET.fromstring(content).tag.endswith("svg")
    assert b"dc:date" not in content


def test_one_epoch_is_drawn_as_points() -> None:
    content = plots.curves("classifier", [1], {"train_loss": [0.5], "val_accuracy": [0.9]}, title="", best_epoch=1)
    assert count_ink(content, BLUE) > 30
    assert count_ink(content, VERMILLION) > 30


def test_gaps_are_left_out_and_a_lone_value_is_visible() -> None:
    values: list[float | None] = [None] * 30
    values[10] = 0.5
    lone = plots.curves("gan", EPOCHS, {"d_loss": values}, title="")
    values[20] = float("nan")
    values[21] = float("inf")
    assert lone == plots.curves("gan", EPOCHS, {"d_loss": values}, title="")
    assert count_ink(lone, BLUE) > 30


@pytest.mark.parametrize(
    "series", [{}, {"train_loss": [None] * 30}, {"train_loss": [float("nan")] * 30}, {"another": FALLING}]
)
def test_nothing_to_draw_is_not_an_error(series: dict[str, list[float | None]]) -> None:
    assert read_png(plots.curves("classifier", EPOCHS, series, title="")).shape[1] == 1200
    assert read_png(plots.curves("classifier", [], {}, title="", best_epoch=3)).shape[1] == 1200


@pytest.mark.parametrize(
    "values", [[0.0] * 30, [1e-300] * 30, [1e300, *[1e-300] * 29], [-5.0, *[1e6] * 29], [0.1] * 30]
)
def test_extreme_values_are_drawn(values: list[float | None]) -> None:
    series = {"train_loss": values, "val_loss": values, "val_accuracy": values}
    assert read_png(plots.curves("classifier", EPOCHS, series, title="", best_epoch=2)).shape[1] == 1200


@pytest.mark.parametrize("title", ["$\\frac{1}{", "日本 🦊", "a" * 500, "line\nbreak\t\0", "50 % _ ^ \\"])
def test_any_title_is_drawn(title: str) -> None:
    assert read_png(plots.curves("gan", EPOCHS, GAN, title=title)).shape == (504, 1200, 3)
    assert read_png(plots.confusion([[1]], title=title, class_names=[title])).shape[1] == 912


def test_curves_refuse_unknown_kinds_and_series_of_the_wrong_length() -> None:
    with pytest.raises(ValueError, match="'regression'"):
        plots.curves("regression", EPOCHS, {}, title="")
    with pytest.raises(ValueError, match="train_loss: 2 values for 30 epochs"):
        plots.curves("classifier", EPOCHS, {"train_loss": [1.0, 2.0]}, title="")


@pytest.mark.parametrize("classes", [1, 2, 10, 15, 40])
def test_a_confusion_matrix_of_any_size_is_drawn(classes: int) -> None:
    matrix = np.random.default_rng(0).integers(0, 3000, (classes, classes))
    matrix[0] = 0  # a class without an example
    assert read_png(plots.confusion(matrix, title="t")).shape == (864, 912, 3)


def test_a_confusion_matrix_must_be_square_and_fit_its_class_names() -> None:
    with pytest.raises(ValueError, match="square"):
        plots.confusion(np.zeros((2, 3), int), title="")
    with pytest.raises(ValueError, match="3 class names for 2"):
        plots.confusion(np.zeros((2, 2), int), title="", class_names=["a", "b", "c"])


def test_threads_can_draw_concurrently() -> None:
    expected = plots.curves("gan", EPOCHS, GAN, title="t")
    drawn: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: drawn.append(plots.curves("gan", EPOCHS, GAN, title="t"))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert drawn == [expected] * 4


@pytest.mark.stack
def test_plots_do_not_load_pyplot() -> None:
    code = "import sys, service.pictures.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
