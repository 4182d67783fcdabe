"""Each loss and penalty of a GAN, compared with PyTorch: ten steps in float64 from the same initial weights."""

from typing import Any

import numpy as np
import pytest

from engine import (
    Adam,
    Dense,
    EpochDone,
    GanTrainer,
    ImageData,
    Latent,
    Residual,
    Sequential,
    batches,
    generator_for,
    ops,
    schedules,
)
from engine.autograd.tape import GradientTape
from engine.autograd.tensor import Tensor
from engine.nn.linear import SpectralNorm

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.nightly
F = torch.nn.functional
BATCH, EPOCHS, PIXELS, LATENT = 10, 5, 16, 4


def losses(name: str, smoothing: float) -> tuple[Any, Any]:
    """The generator's loss of D(fake) and the discriminator's of D(real) and D(fake), as in the papers."""
    return {
        "binary_cross_entropy": (
            lambda f: -F.logsigmoid(f).mean(),
            lambda r, f: (
                (F.binary_cross_entropy_with_logits(r, torch.full_like(r, 1 - smoothing)) - F.logsigmoid(-f).mean()) / 2
            ),
        ),
        "least_squares": (
            lambda f: ((f - 1) ** 2).mean(),
            lambda r, f: (((r - (1 - smoothing)) ** 2).mean() + (f**2).mean()) / 2,
        ),
        "hinge": (lambda f: -f.mean(), lambda r, f: F.relu(1 - r).mean() + F.relu(1 + f).mean()),
        "wasserstein": (lambda f: -f.mean(), lambda r, f: f.mean() - r.mean()),
    }[name]


CASES: dict[str, dict[str, Any]] = {
    "binary cross-entropy": {"loss": "binary_cross_entropy", "label_smoothing": 0.1},
    "least squares": {"loss": "least_squares", "label_smoothing": 0.1},
    "hinge": {"loss": "hinge"},
    "wasserstein": {"loss": "wasserstein"},
    "gradient penalty": {"loss": "wasserstein", "gradient_penalty": 10.0, "critic_steps": 2},
    "r1": {"loss": "binary_cross_entropy", "r1": 2.0},
    "pack": {"loss": "least_squares", "pack": 2},
    "pack and gradient penalty": {"loss": "wasserstein", "gradient_penalty": 10.0, "pack": 5},
}


@pytest.mark.parametrize("case", CASES)
def test_ten_gan_steps_match_pytorch(case: str) -> None:
    settings = {"label_smoothing": 0.0, "gradient_penalty": 0.0, "r1": 0.0, "pack": 1, "critic_steps": 1} | CASES[case]
    rng, pack = generator_for(0, "init"), settings["pack"]
    double: dict[str, Any] = {"rng": rng, "dtype": np.float64}
    generator = Sequential([Dense(LATENT, 9, "tanh", **double), Dense(9, PIXELS, "tanh", **double)])
    output_activation = "sigmoid" if settings["loss"] == "binary_cross_entropy" else None
    discriminator = Sequential([Dense(PIXELS * pack, 7, "tanh", **double), Dense(7, 1, output_activation, **double)])
    data = ImageData(np.random.default_rng(0).integers(0, 256, (20, 4, 4), np.uint8), None, (-1, 1))
    twins = [
        [torch.tensor(np.array(p), requires_grad=True) for p in network.parameters]
        for network in (generator, discriminator)
    ]
    constant = schedules.constant()
    trainer = GanTrainer(
        generator,
        discriminator,
        Adam(0.01, 0.5),
        Adam(0.01, 0.5),
        constant,
        constant,
        train=data,
        latent=Latent(LATENT),
        epochs=EPOCHS,
        batch_size=BATCH,
        shuffle=False,
        seed=3,
        dtype=np.float64,
        **settings,
    )
    for report in trainer.run():
        assert not isinstance(report, EpochDone) or np.isfinite(report.metrics["d_loss"])

    def g(z: Any) -> Any:
        w, b, v, c = twins[0]
        return torch.tanh(torch.tanh(z @ w + b) @ v + c)

    def d(x: Any) -> Any:
        w, b, v, c = twins[1]
        return torch.tanh(x.reshape(len(x) // pack, -1) @ w + b) @ v + c

    def input_gradients(x: Any) -> Any:
        points = x.detach().requires_grad_()
        (input_gradient,) = torch.autograd.grad(d(points).sum(), points, create_graph=True)
        return input_gradient.reshape(len(x) // pack, -1)

    g_cost, d_cost = losses(settings["loss"], settings["label_smoothing"])
    torch_optimizers = [torch.optim.Adam(twin, 0.01, betas=(0.5, 0.999), eps=1e-8) for twin in twins]
    step = 0
    for epoch in range(EPOCHS):
        latent_rng, interpolation_rng = generator_for(3, "latent", epoch), generator_for(3, "dropout", epoch)
        for batch in batches(len(data), BATCH, seed=3, epoch=epoch, shuffle=False):
            fakes = g(torch.from_numpy(trainer.latent.draw(latent_rng, BATCH, np.float64)))
            reals = torch.from_numpy(data.inputs(batch, np.float64))
            d_loss = d_cost(d(reals), d(fakes))
            if settings["gradient_penalty"]:
                weights = torch.from_numpy(interpolation_rng.random((BATCH, 1), np.float64))
                norms = input_gradients(weights * reals + (1 - weights) * fakes).norm(dim=1)
                d_loss = d_loss + settings["gradient_penalty"] * ((norms - 1) ** 2).mean()
            if settings["r1"]:
                d_loss = d_loss + settings["r1"] / 2 * (input_gradients(reals) ** 2).sum(1).mean()
            gradients = [
                torch.autograd.grad(cost, twin, retain_graph=True, allow_unused=True)
                for cost, twin in ((g_cost(d(fakes)), twins[0]), (d_loss, twins[1]))
            ]
            updated = [0, 1] if (step + 1) % settings["critic_steps"] == 0 else [1]
            for index in updated:
                for parameter, gradient in zip(twins[index], gradients[index], strict=True):
                    parameter.grad = torch.zeros_like(parameter) if gradient is None else gradient
                torch_optimizers[index].step()
            step += 1
    for network, twin in ((generator, twins[0]), (discriminator, twins[1])):
        for ours, theirs in zip(network.parameters, twin, strict=True):
            np.testing.assert_allclose(ours, theirs.detach(), rtol=1e-7, atol=1e-8)


def test_spectral_norm_and_its_gradient_match_pytorch() -> None:
    rng = generator_for(0, "w")
    weight, norm = rng.standard_normal((6, 4)), SpectralNorm(4, rng=rng, dtype=np.float64)
    start = torch.from_numpy(norm.vector.copy())
    ours, theirs = Tensor(weight.copy(), watch=True), torch.tensor(weight, requires_grad=True)
    with GradientTape() as tape:
        y = np.sin(norm(ours, training=True))
    with torch.no_grad():  # torch.nn.utils.parametrizations.spectral_norm does the same with two vectors
        v = F.normalize(theirs @ start, dim=0)
        u = F.normalize(theirs.T @ v, dim=0)
    z = torch.sin(theirs / (v @ theirs @ u))
    np.testing.assert_allclose(y, z.detach(), rtol=1e-10)
    np.testing.assert_allclose(norm.vector, u, rtol=1e-10)
    (expected,) = torch.autograd.grad(z.sum(), theirs)
    np.testing.assert_allclose(tape.gradient(y, [ours])[0], expected, rtol=1e-9, atol=1e-12)


def test_residual_layers_and_activations_match_pytorch() -> None:
    names = ("gelu", "silu", "elu", "softplus")
    functions = (lambda x: F.gelu(x, approximate="tanh"), F.silu, F.elu, F.softplus)
    for name, function in zip(names, functions, strict=True):
        rng = generator_for(0, "w")
        layer = Residual([Dense(4, 7, name, rng=rng, dtype=np.float64), Dense(7, 4, rng=rng, dtype=np.float64)], name)
        x = 3 * rng.standard_normal((5, 4))
        ours, theirs = Tensor(x, watch=True), torch.tensor(x, requires_grad=True)
        w, b, v, c = (torch.tensor(np.array(p), requires_grad=True) for p in layer.parameters.values())
        z = function(theirs + function(theirs @ w + b) @ v + c)
        with GradientTape() as tape:
            y = ops.multiply(layer(ours), 1.0)
        np.testing.assert_allclose(y, z.detach(), rtol=1e-10, atol=1e-12)
        expected = torch.autograd.grad(z.sum(), [theirs, w, b, v, c])
        for got, want in zip(tape.gradient(y, [ours, *layer.parameters.values()]), expected, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-11)
