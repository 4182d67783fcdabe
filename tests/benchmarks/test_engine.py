"""All variants of a benchmark do the same work: the same bits by hand, the same products in the floor."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import tables
from benchmarks.engine import cases, conv_cases, digits, floor, handwritten, memory, timing
from benchmarks.engine.digits import CLASSIFIER, DISCRIMINATOR, GENERATOR
from benchmarks.engine.peers import jax_jit, pytorch
from benchmarks.engine.rows import first, stepper
from engine import SGD, Adam, ImageData, generator_for
from engine.replay import Replay


@pytest.fixture(scope="module")
def data() -> ImageData:
    return first(digits.training(), 100)


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
    step = stepper(trainer)
    for _ in range(7):
        step()
        by_hand.step()
    for i, layer in enumerate(by_hand.layers):
        weight, bias = trainer.model.parameters[2 * i : 2 * i + 2]
        assert layer.w.tobytes() == weight.tobytes()
        assert layer.b.tobytes() == bias.tobytes()
    assert sorted(products[0]) == sorted(floor.classifier_step(CLASSIFIER, 50))


@pytest.mark.slow
@pytest.mark.parametrize("skip_every", [None, 3])
def test_the_gan_by_hand_gives_the_same_bits(data: ImageData, products: list[Any], skip_every: int | None) -> None:
    trainer = cases.gan(data, 100, skip_every, lambda: SGD(cases.RATE))
    networks = [
        (digits.network(sizes, name), sizes)
        for name, sizes in (("generator", GENERATOR), ("discriminator", DISCRIMINATOR))
    ]
    by_hand = handwritten.Gan(*networks, data, 100, cases.RATE, skip_every)
    step = stepper(trainer)
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


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["classifier 50", "classifier 512", "gan"])
def test_a_step_allocates_little_and_its_peak_is_near_what_it_needs(data: ImageData, kind: str) -> None:
    if kind == "gan":
        needed = memory.needed_bytes(
            [(GENERATOR, 100), (DISCRIMINATOR, 100), (DISCRIMINATOR, 100)], [GENERATOR, DISCRIMINATOR]
        )
        used = memory.measure(lambda: cases.gan(data, 100, 3, lambda: SGD(cases.RATE)))
    else:
        batch = int(kind.split()[1])
        needed = memory.needed_bytes([(CLASSIFIER, batch)], [CLASSIFIER])
        used = memory.measure(lambda: cases.classifier(first(data, batch), CLASSIFIER, batch))
    assert used["first_peak"] <= 1.5 * sum(needed.values())
    assert used["peak"] <= 1.2 * sum(needed.values())
    assert used["allocated"] < 150_000  # bytes: the raw noise, 64 images as bytes; no activation, no gradient


def test_a_graph_of_scalars_gives_the_same_numbers() -> None:
    row = cases.scalar_row()
    losses = [[float(row.contestants[name]()) for _ in range(3)] for name in ("engine", "scalars")]
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
    peers = {"torch_ms": 2.0, "jax_ms": 1.03}
    assert tables.ratios(row | peers) == [(2.0, True), (1.0, False), (0.5, False), (1 / 1.03, True)]
    assert tables.ratios(row | {"torch_ms": None, "jax_ms": 1.03, "threads": 2, "floor_ms": 0.7})[::3] == [
        (1 / 0.7, False),
        (1 / 1.03, False),  # with two threads: no slower
    ]
    line = tables.text([row | peers]).splitlines()[2]
    assert line.split()[-4:] == ["2.00!", "1.00", "0.50", "0.97!"]


@pytest.mark.reference
@pytest.mark.parametrize("peer", ["torch", "jax"])
@pytest.mark.parametrize("kind", ["dense", "adam", "conv"])
def test_a_peers_classifier_learns_the_same(
    data: ImageData, kind: str, peer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(peer)
    if kind == "conv":
        engine, row = conv_cases.classifier(data, 100, 0.0), conv_cases.classifier_row(100, 0.0)
    elif kind == "adam":
        engine, row = cases.classifier(data, CLASSIFIER, 50, Adam(cases.RATE)), next(iter(cases.adam_rows()))
    else:
        engine, row = cases.classifier(data, CLASSIFIER, 50), cases.classifier_row("", 50)
    losses = []
    original = engine._loss_and_gradients
    monkeypatch.setattr(
        engine, "_losses", lambda *given, **named: losses.append(original(*given, **named)) or losses[-1]
    )
    engine.replay = False
    step, ours = stepper(engine), []
    for _ in range(5):
        step()
        ours.append(float(losses[-1][0]))
    scale = 100 if engine.loss.reduction == "sum" else 1
    theirs = [float(row.contestants[peer]()) for _ in range(5)]
    np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-5 * scale)
    assert ours[0] != pytest.approx(ours[-1], rel=1e-4)  # it learns


@pytest.mark.reference
@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_peers_of_the_gan_learn_the_same(data: ImageData, kind: str) -> None:
    torch, jax = (pytest.importorskip(name) for name in ("torch", "jax"))
    trainer = cases.gan(data, 100, None, lambda: SGD(1e-4)) if kind == "dense" else conv_cases.gan(data, 100, 0.0)
    networks = (trainer.generator, trainer.discriminator)
    begun = [[np.array(parameter) for parameter in network.parameters] for network in networks]
    settings: dict[str, Any] = {"reduction": "sum"}
    makers: list[Any] = [pytorch.sgd(1e-4), jax_jit.sgd(1e-4)]
    # Adam's first steps are the signs of the gradients: where one is nearly 0, all of the step may differ.
    bound = 1e-4 if kind == "dense" else 0.05
    if kind == "conv":
        settings = {"reduction": "mean", "smoothing": 0.1}
        makers = [pytorch.adam(1e-4, 0.5), jax_jit.adam(1e-4, 0.5)]
    twins = (pytorch.network(networks[0]), pytorch.network(networks[1], last=False))
    by_torch = pytorch.Gan(*twins, data, 100, (makers[0],) * 2, None, trainer.latent.dim, **settings)
    by_jax = jax_jit.Gan(*networks, data, 100, (makers[1],) * 2, **settings)
    rng = generator_for(0, "latent", 0)
    noise = [trainer.latent.draw(rng, 100, np.float32) for _ in range(5)]
    step, keys = stepper(trainer), (jax.random.key(0), jax.random.key(1))
    for number, draw in enumerate(noise):
        step()
        by_torch.noise = lambda: torch.from_numpy(np.array(draw, order="C"))  # noqa: B023 - called before the next
        by_torch.step()
        given = (by_jax.g, by_jax.g_buffers, by_jax.g_state, by_jax.d, by_jax.d_state)
        by_jax.g, by_jax.g_state, by_jax.g_buffers, by_jax.d, by_jax.d_state, _ = by_jax.learn(
            *given, np.array(draw), by_jax.rows, 100 * number, keys
        )
    for network, before, module, arrays in zip(networks, begun, twins, (by_jax.g, by_jax.d), strict=True):
        by_torch_too = [np.array(parameter.detach().numpy().T) for parameter in module.parameters()]
        by_torch_too = [array.transpose(1, 0, 2, 3) if array.ndim == 4 else array for array in by_torch_too]
        moved = np.concatenate(
            [(after - start).ravel() for after, start in zip(network.parameters, before, strict=True)]
        )
        for other in (by_torch_too, arrays):
            theirs = np.concatenate([(after - start).ravel() for after, start in zip(other, before, strict=True)])
            assert np.linalg.norm(moved - theirs) < bound * np.linalg.norm(moved)


def test_the_quietest_rounds_count() -> None:
    rounds = [(percent / 100, {"engine": float(percent)}) for percent in range(20)]
    assert [times["engine"] for times in timing.undisturbed(rounds[::-1])] == list(range(8))  # below 8%
    assert [times["engine"] for times in timing.undisturbed(rounds[:4:-1])] == list(range(5, 12))  # too few are
    assert len(timing.undisturbed([(0.0, {})] * 30)) == 30


def test_with_one_thread_only_processor_time_counts() -> None:
    contestants = {"works": lambda: sum(range(50_000)), "waits": lambda: time.sleep(0.002)}
    found = timing.minima(contestants, seconds=0.002, max_seconds=0.1)
    assert 0 < found["waits"] < found["works"]
