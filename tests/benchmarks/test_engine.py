"""All variants of a benchmark do the same work.

Handwritten trainers compute the same bits, and the floor has the same matrix products.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import tables
from benchmarks.engine import cases, conv_cases, digits, floor, handwritten, memory, timing
from benchmarks.engine.digits import CLASSIFIER, DISCRIMINATOR, GENERATOR
from benchmarks.engine.peers import jax_jit, pytorch
from benchmarks.engine.rows import stepper, whole_batches
from engine import SGD, Adam, ImageData, generator_for
from engine.replay import Replay


@pytest.fixture(scope="module")
def data() -> ImageData:
    return whole_batches(digits.training(), 100)


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[list[Any]]:
    """The operand shapes of the matrix products in each replay plan, recorded as plans are made."""
    recorded: list[list[Any]] = []
    original_trace = Replay._trace

    def spy(self: Replay, *args: Any) -> Any:
        results = original_trace(self, *args)
        calls = self.plans[-1].calls
        recorded.append([tuple(a.shape for a in call.args) for call in calls if call.function is np.matmul])
        return results

    monkeypatch.setattr(Replay, "_trace", spy)
    return recorded


def test_the_handwritten_classifier_has_the_same_bits(data: ImageData, products: list[Any]) -> None:
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


@pytest.mark.nightly
@pytest.mark.parametrize("skip_every", [None, 3])
def test_the_handwritten_gan_has_the_same_bits(data: ImageData, products: list[Any], skip_every: int | None) -> None:
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


def test_the_floor_computes_the_listed_matrix_products() -> None:
    shapes = floor.classifier_step(CLASSIFIER, 5)
    run = floor.runner(shapes)
    (calls,) = run.args
    assert [(left.shape, right.shape) for left, right, _ in calls] == shapes
    for _, _, out in calls:
        out.fill(np.nan)
    run()
    for left, right, out in calls:
        np.testing.assert_array_equal(out, left @ right)


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["classifier 50", "classifier 512", "gan"])
def test_a_step_allocates_little_and_peaks_near_its_minimum_memory(data: ImageData, kind: str) -> None:
    if kind == "gan":
        needed = memory.needed_bytes(
            [(GENERATOR, 100), (DISCRIMINATOR, 100), (DISCRIMINATOR, 100)], [GENERATOR, DISCRIMINATOR]
        )
        used = memory.measure(lambda: cases.gan(data, 100, 3, lambda: SGD(cases.RATE)))
    else:
        batch = int(kind.split()[1])
        needed = memory.needed_bytes([(CLASSIFIER, batch)], [CLASSIFIER])
        used = memory.measure(lambda: cases.classifier(whole_batches(data, batch), CLASSIFIER, batch))
    assert used["first_peak"] <= 1.5 * sum(needed.values())
    assert used["peak"] <= 1.2 * sum(needed.values())
    assert used["allocated"] < 150_000  # bytes: the raw noise and 64 images as bytes, no activations or gradients


def test_the_scalar_graph_computes_the_same_losses() -> None:
    row = cases.scalar_row()
    losses = [[float(row.contestants[name]()) for _ in range(3)] for name in ("engine", "scalars")]
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_the_performance_document_shows_the_stored_results() -> None:
    text = tables.DOCUMENT.read_text(encoding="utf-8")
    assert text.partition(tables.BEGIN)[2].partition(tables.END)[0].strip() == tables.stored_table()


def test_stored_results_are_written_between_the_markers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = tmp_path / "performance.md"
    document.write_text(f"before\n{tables.BEGIN}\nold\n{tables.END}\nafter\n")
    monkeypatch.setattr(tables, "DOCUMENT", document)
    tables.update_document()
    assert document.read_text() == f"before\n{tables.BEGIN}\n\n{tables.stored_table()}\n\n{tables.END}\nafter\n"


def test_a_ratio_that_misses_its_target_is_marked() -> None:
    row = {"name": "classifier step, batch 50", "threads": 1, "ms": 1.0, "floor_ms": 0.5, "handwritten_ms": 1.0}
    peers = {"torch_ms": 2.0, "jax_ms": 1.03}
    assert tables.ratios(row | peers) == [(2.0, True), (1.0, False), (0.5, False), (1 / 1.03, True)]
    assert tables.ratios(row | {"torch_ms": None, "jax_ms": 1.03, "threads": 2, "floor_ms": 0.7})[::3] == [
        (1 / 0.7, False),
        (1 / 1.03, False),  # with two threads, the target is to be no slower
    ]
    line = tables.text([row | peers]).splitlines()[2]
    assert line.split()[-4:] == ["2.00!", "1.00", "0.50", "0.97!"]


@pytest.mark.nightly
@pytest.mark.parametrize("peer", ["torch", "jax"])
@pytest.mark.parametrize("kind", ["dense", "adam", "conv"])
def test_a_peer_classifier_has_the_same_losses(
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
        engine, "_losses", lambda *args, **kwargs: losses.append(original(*args, **kwargs)) or losses[-1]
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


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_peer_gans_learn_the_same_weights(data: ImageData, kind: str) -> None:
    torch, jax = (pytest.importorskip(name) for name in ("torch", "jax"))
    trainer = cases.gan(data, 100, None, lambda: SGD(1e-4)) if kind == "dense" else conv_cases.gan(data, 100, 0.0)
    networks = (trainer.generator, trainer.discriminator)
    initial = [[np.array(parameter) for parameter in network.parameters] for network in networks]
    settings: dict[str, Any] = {"reduction": "sum"}
    optimizers: list[Any] = [pytorch.sgd(1e-4), jax_jit.sgd(1e-4)]
    # Adam's first steps follow the signs of the gradients: where one is nearly 0, the whole step may differ.
    bound = 1e-4 if kind == "dense" else 0.05
    if kind == "conv":
        settings = {"reduction": "mean", "smoothing": 0.1}
        optimizers = [pytorch.adam(1e-4, 0.5), jax_jit.adam(1e-4, 0.5)]
    torch_networks = (pytorch.network(networks[0]), pytorch.network(networks[1], last=False))
    by_torch = pytorch.Gan(*torch_networks, data, 100, (optimizers[0],) * 2, None, trainer.latent.dim, **settings)
    by_jax = jax_jit.Gan(*networks, data, 100, (optimizers[1],) * 2, **settings)
    rng = generator_for(0, "latent", 0)
    noise = [trainer.latent.draw(rng, 100, np.float32) for _ in range(5)]
    step, keys = stepper(trainer), (jax.random.key(0), jax.random.key(1))
    for number, draw in enumerate(noise):
        step()
        by_torch.noise = lambda: torch.from_numpy(np.array(draw, order="C"))  # noqa: B023 - called in this iteration
        by_torch.step()
        state = (by_jax.g, by_jax.g_buffers, by_jax.g_state, by_jax.d, by_jax.d_state)
        by_jax.g, by_jax.g_state, by_jax.g_buffers, by_jax.d, by_jax.d_state, _ = by_jax.learn(
            *state, np.array(draw), by_jax.rows, 100 * number, keys
        )
    for network, initial_arrays, module, jax_arrays in zip(
        networks, initial, torch_networks, (by_jax.g, by_jax.d), strict=True
    ):
        torch_arrays = [np.array(parameter.detach().numpy().T) for parameter in module.parameters()]
        torch_arrays = [array.transpose(1, 0, 2, 3) if array.ndim == 4 else array for array in torch_arrays]
        our_change = np.concatenate(
            [(after - start).ravel() for after, start in zip(network.parameters, initial_arrays, strict=True)]
        )
        for peer_arrays in (torch_arrays, jax_arrays):
            peer_change = np.concatenate(
                [(after - start).ravel() for after, start in zip(peer_arrays, initial_arrays, strict=True)]
            )
            assert np.linalg.norm(our_change - peer_change) < bound * np.linalg.norm(our_change)


def test_undisturbed_rounds_are_used_or_else_the_least_disturbed() -> None:
    rounds = [(percent / 100, {"engine": float(percent)}) for percent in range(20)]
    assert [times["engine"] for times in timing.undisturbed(rounds[::-1])] == list(range(8))  # below 8%
    assert [times["engine"] for times in timing.undisturbed(rounds[:4:-1])] == list(
        range(5, 12)
    )  # fewer than MIN_ROUNDS
    assert len(timing.undisturbed([(0.0, {})] * 30)) == 30


def test_single_threaded_minima_measure_processor_time_only() -> None:
    # The measurement must tell waiting from working.
    contestants = {"works": lambda: sum(range(50_000)), "waits": lambda: time.sleep(0.002)}
    minima = timing.minima(contestants, seconds=0.002, max_seconds=0.1)
    assert 0 < minima["waits"] < minima["works"]
