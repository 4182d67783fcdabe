"""All variants of a benchmark do the same work: the same bits by hand, the same products in the floor."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import cases, digits, floor, handwritten, memory, tables, timing
from benchmarks.digits import CLASSIFIER, DISCRIMINATOR, GENERATOR
from engine import SGD, ImageData
from engine.replay import Replay


@pytest.fixture(scope="module")
def data() -> ImageData:
    return cases.first(digits.training(), 100)


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[list[Any]]:
    """The shapes of the matrix products in each plan."""
    recorded: list[list[Any]] = []
    original = Replay._trace

    def spy(self: Replay, *args: Any) -> Any:
        results = original(self, *args)
        calls = self.plans[-1].calls
        recorded.append([tuple(a.shape for a in call.args) for call in calls if call.function is np.matmul])
        return results

    monkeypatch.setattr(Replay, "_trace", spy)
    return recorded


def test_the_classifier_by_hand_gives_the_same_bits(data: ImageData, products: list[Any]) -> None:
    trainer = cases.classifier(data, CLASSIFIER, 50)
    by_hand = handwritten.Classifier(digits.network(CLASSIFIER, "init"), CLASSIFIER, data, 50, cases.RATE)
    step = cases.stepper(trainer)
    for _ in range(7):
        step()
        by_hand.step()
    for i, layer in enumerate(by_hand.layers):
        weight, bias = trainer.model.parameters[2 * i : 2 * i + 2]
        assert layer.w.tobytes() == weight.tobytes()
        assert layer.b.tobytes() == bias.tobytes()
    assert sorted(products[0]) == sorted(floor.classifier_step(CLASSIFIER, 50))


@pytest.mark.parametrize("skip_every", [None, 3])
def test_the_gan_by_hand_gives_the_same_bits(data: ImageData, products: list[Any], skip_every: int | None) -> None:
    trainer = cases.gan(data, 100, skip_every, lambda: SGD(cases.RATE))
    networks = [
        (digits.network(sizes, name), sizes)
        for name, sizes in (("generator", GENERATOR), ("discriminator", DISCRIMINATOR))
    ]
    by_hand = handwritten.Gan(*networks, data, 100, cases.RATE, skip_every)
    step = cases.stepper(trainer)
    for _ in range(7):
        step()
        by_hand.step()
    for network, layers in ((trainer.generator, by_hand.generator), (trainer.discriminator, by_hand.on_fakes)):
        for i, layer in enumerate(layers):
            weight, bias = network.parameters[2 * i : 2 * i + 2]
            assert layer.w.tobytes() == weight.tobytes()
            assert layer.b.tobytes() == bias.tobytes()
    expected = [floor.gan_step(GENERATOR, DISCRIMINATOR, 100, updates) for updates in (False, True)]
    assert sorted(map(sorted, products)) == sorted(map(sorted, expected if skip_every else expected[1:]))


def test_the_floor_makes_the_products_of_numpy() -> None:
    shapes = floor.classifier_step(CLASSIFIER, 5)
    seen = []
    run = floor.runner(shapes)
    for left, right, out in run.__closure__[0].cell_contents:  # type: ignore[index]
        seen.append((left.shape, right.shape))
        np.matmul(left, right, out=out)
        np.testing.assert_array_equal(out, left @ right)
    assert seen == shapes


@pytest.mark.parametrize("kind", ["classifier 50", "classifier 512", "gan"])
def test_a_step_allocates_little_and_its_peak_is_near_what_it_needs(data: ImageData, kind: str) -> None:
    if kind == "gan":
        needed = memory.needed_bytes(
            [(GENERATOR, 100), (DISCRIMINATOR, 100), (DISCRIMINATOR, 100)], [GENERATOR, DISCRIMINATOR]
        )
        taken = memory.measure(lambda: cases.gan(data, 100, 3, lambda: SGD(cases.RATE)))
    else:
        batch = int(kind.split()[1])
        needed = memory.needed_bytes([(CLASSIFIER, batch)], [CLASSIFIER])
        taken = memory.measure(lambda: cases.classifier(cases.first(data, batch), CLASSIFIER, batch))
    assert taken["first_peak"] <= 1.5 * sum(needed.values())
    assert taken["peak"] <= 1.2 * sum(needed.values())
    assert taken["allocated"] < 150_000  # bytes: the raw noise, 64 images as bytes; no activation, no gradient


def test_a_graph_of_scalars_gives_the_same_numbers() -> None:
    row = cases.scalar_row()
    losses = [[float(row.contestants[name]()) for _ in range(3)] for name in ("engine", "scalars")]  # type: ignore[arg-type]
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_the_performance_document_has_the_results_that_are_kept() -> None:
    text = tables.DOCUMENT.read_text(encoding="utf-8")
    assert text.partition(tables.BEGIN)[2].partition(tables.END)[0].strip() == tables.kept()


def test_kept_results_are_written_between_the_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = tmp_path / "performance.md"
    document.write_text(f"before\n{tables.BEGIN}\nold\n{tables.END}\nafter\n")
    monkeypatch.setattr(tables, "DOCUMENT", document)
    tables.update_document()
    assert document.read_text() == f"before\n{tables.BEGIN}\n\n{tables.kept()}\n\n{tables.END}\nafter\n"


def test_a_figure_that_misses_its_goal_is_marked() -> None:
    row = {"name": "classifier step, batch 50", "threads": 1, "ms": 1.0, "floor_ms": 0.5, "handwritten_ms": 1.0}
    assert tables.ratios(row | {"torch_ms": 2.0}) == [(2.0, True), (1.0, False), (0.5, False)]
    assert tables.ratios(row | {"torch_ms": None, "threads": 2, "floor_ms": 0.7})[::2] == [
        (1 / 0.7, False),
        (None, False),
    ]
    line = tables.text([row | {"torch_ms": 2.0}]).splitlines()[2]
    assert line.split()[-3:] == ["2.00!", "1.00", "0.50"]


def test_the_quietest_rounds_count() -> None:
    rounds = [(share / 100, {"engine": float(share)}) for share in range(20)]
    assert [times["engine"] for times in timing.undisturbed(rounds[::-1])] == list(range(8))  # below 8%
    assert [times["engine"] for times in timing.undisturbed(rounds[:4:-1])] == list(range(5, 12))  # too few are
    assert len(timing.undisturbed([(0.0, {})] * 30)) == 30
