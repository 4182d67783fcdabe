"""Whole networks compared with PyTorch: ten steps in float64, every loss, optimizer and schedule, to 1e-10.

PyTorch is in no lock file: ``pip install torch``, then ``pytest -m reference tests/engine``.
"""

import itertools
from typing import Any

import numpy as np
import pytest

from engine import (
    SGD,
    Adam,
    AdamW,
    BatchDone,
    BinaryCrossEntropy,
    ClassifierTrainer,
    Dense,
    EpochDone,
    GanTrainer,
    ImageData,
    Latent,
    Sequential,
    SoftmaxCrossEntropy,
    SquaredError,
    Tensor,
    batches,
    generator_for,
    initializers,
    schedules,
)

torch = pytest.importorskip("torch")
# Step 0 skips the discriminator, and PyTorch warns if a schedule moves before its optimizer has made a step.
pytestmark = [pytest.mark.nightly, pytest.mark.filterwarnings("ignore:Detected call of")]

STEPS_PER_EPOCH, EPOCHS, BATCH = 2, 5, 10


def decay_groups(parameters: Any, decay: float) -> list[dict[str, Any]]:
    """Two parameter groups, as is usual in PyTorch: arrays with two axes decay, those with one do not."""
    tensors = list(parameters)
    return [
        {"params": [p for p in tensors if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in tensors if p.ndim == 1], "weight_decay": 0.0},
    ]


OPTIMIZERS = {
    "sgd": (lambda: SGD(0.01), lambda p: torch.optim.SGD(p, 0.01)),
    "momentum": (lambda: SGD(0.01, 0.9), lambda p: torch.optim.SGD(p, 0.01, momentum=0.9)),
    "nesterov": (
        lambda: SGD(0.01, 0.9, nesterov=True),
        lambda p: torch.optim.SGD(p, 0.01, momentum=0.9, nesterov=True),
    ),
    "decay": (lambda: SGD(0.01, weight_decay=0.3), lambda p: torch.optim.SGD(p, 0.01, weight_decay=0.3)),
    "nesterov, decay": (
        lambda: SGD(0.01, 0.9, nesterov=True, weight_decay=0.3),
        lambda p: torch.optim.SGD(p, 0.01, momentum=0.9, nesterov=True, weight_decay=0.3),
    ),
    "weights only": (
        lambda: SGD(0.01, 0.9, weight_decay=0.3, decay_biases=False),
        lambda p: torch.optim.SGD(decay_groups(p, 0.3), 0.01, momentum=0.9),
    ),
    "adam": (lambda: Adam(0.01, 0.5, 0.99), lambda p: torch.optim.Adam(p, 0.01, betas=(0.5, 0.99))),
    "adamw": (
        lambda: AdamW(0.01, 0.5, 0.99, weight_decay=0.3),
        lambda p: torch.optim.AdamW(p, 0.01, betas=(0.5, 0.99), weight_decay=0.3),
    ),
    "adamw, weights only": (
        lambda: AdamW(0.01, weight_decay=0.3, decay_biases=False),
        lambda p: torch.optim.AdamW(decay_groups(p, 0.3), 0.01),
    ),
}
SCHEDULES = {
    "constant": (schedules.constant(), lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda step: 1.0)),
    "step": (
        schedules.step([1, 3], 0.5),
        lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [STEPS_PER_EPOCH, 3 * STEPS_PER_EPOCH], 0.5),
    ),
    "one_cycle": (
        schedules.one_cycle(),
        lambda o: torch.optim.lr_scheduler.OneCycleLR(
            o, 0.01, total_steps=STEPS_PER_EPOCH * EPOCHS, cycle_momentum=False
        ),
    ),
    "cosine": (
        schedules.cosine(end=0.1),
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, STEPS_PER_EPOCH * EPOCHS, 0.01 * 0.1),
    ),
    "cosine, warm-up": (
        schedules.cosine(warmup=0.4, start=0.2),
        lambda o: torch.optim.lr_scheduler.SequentialLR(
            o,
            [
                torch.optim.lr_scheduler.LinearLR(o, 0.2, total_iters=4),
                torch.optim.lr_scheduler.CosineAnnealingLR(o, STEPS_PER_EPOCH * EPOCHS - 4),
            ],
            [4],
        ),
    ),
}
ACTIVATIONS = {
    "sigmoid": torch.nn.Sigmoid(),
    "tanh": torch.nn.Tanh(),
    "relu": torch.nn.ReLU(),
    "leaky_relu": torch.nn.LeakyReLU(0.2),
    "softmax": torch.nn.Softmax(dim=1),
}
LOSSES = {
    "squared_error": (SquaredError, "sigmoid", lambda y, t: ((y.sigmoid() - torch.eye(10)[t]) ** 2).sum()),
    "binary_cross_entropy": (
        BinaryCrossEntropy,
        "sigmoid",
        lambda y, t: torch.nn.functional.binary_cross_entropy_with_logits(y, torch.eye(10)[t], reduction="sum"),
    ),
    "squared_error, smoothed": (
        lambda reduction: SquaredError(reduction, 0.1),
        "sigmoid",
        lambda y, t: ((y.sigmoid() - (0.9 * torch.eye(10)[t] + 0.01)) ** 2).sum(),
    ),
    "binary_cross_entropy, smoothed": (
        lambda reduction: BinaryCrossEntropy(reduction, 0.1),
        "sigmoid",
        lambda y, t: torch.nn.functional.binary_cross_entropy_with_logits(
            y, 0.9 * torch.eye(10)[t] + 0.05, reduction="sum"
        ),
    ),
    "softmax_cross_entropy": (
        lambda reduction: SoftmaxCrossEntropy(reduction, 0.1),
        "softmax",
        lambda y, t: torch.nn.functional.cross_entropy(y, t, reduction="sum", label_smoothing=0.1),
    ),
}


@pytest.fixture(autouse=True)
def _float64_by_default() -> Any:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def images(count: int = BATCH * STEPS_PER_EPOCH, side: int = 28) -> ImageData:
    rng = np.random.default_rng(0)
    return ImageData(rng.integers(0, 256, (count, side, side), np.uint8), rng.integers(0, 10, count), (-1, 1))


def network(sizes: list[int], activations: list[str], seed: int) -> Sequential:
    rng = generator_for(seed, "init")
    layers = zip(sizes, sizes[1:], activations, strict=False)
    return Sequential(
        [Dense(i, u, a, rng=rng, dtype=np.float64, initializer=initializers.uniform(0.05)) for i, u, a in layers]
    )


def twin(model: Sequential) -> Any:
    """The same network in PyTorch, without its last activation."""
    parts: list[Any] = []
    for layer in model.layers:
        linear = torch.nn.Linear(layer.inputs, layer.units)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(np.array(layer.weight).T))
            linear.bias.copy_(torch.from_numpy(np.array(layer.bias)))
        parts += [linear, ACTIVATIONS[str(layer.activation)]]
    return torch.nn.Sequential(*parts[:-1])


def assert_equal(model: Sequential, reference: Any) -> None:
    linears = [part for part in reference if isinstance(part, torch.nn.Linear)]
    for layer, linear in zip(model.layers, linears, strict=True):
        np.testing.assert_allclose(layer.weight, linear.weight.detach().numpy().T, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(layer.bias, linear.bias.detach().numpy(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("loss", "optimizer", "schedule"),
    [
        *itertools.product(["softmax_cross_entropy"], OPTIMIZERS, SCHEDULES),
        *itertools.product(sorted(LOSSES.keys() - {"softmax_cross_entropy"}), ["sgd", "adam"], ["constant"]),
    ],
)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_ten_classifier_steps_match_pytorch(loss: str, reduction: str, optimizer: str, schedule: str) -> None:
    our_loss, output_activation, torch_loss = LOSSES[loss]
    model = network([784, 39, 10], ["tanh" if loss.startswith("squared_error") else "relu", output_activation], seed=1)
    reference = twin(model)
    data = images()
    trainer = ClassifierTrainer(
        model,
        our_loss(reduction),
        OPTIMIZERS[optimizer][0](),
        SCHEDULES[schedule][0],
        train=data,
        validation=data,
        epochs=EPOCHS,
        batch_size=BATCH,
        shuffle=True,
        seed=3,
        dtype=np.float64,
    )
    reports = list(trainer.run())
    assert sum(isinstance(report, BatchDone) for report in reports) == 10

    torch_optimizer = OPTIMIZERS[optimizer][1](reference.parameters())
    torch_schedule = SCHEDULES[schedule][1](torch_optimizer)
    expected_losses = []
    for epoch in range(EPOCHS):
        expected_losses.append(0.0)
        for batch in batches(len(data), BATCH, seed=3, epoch=epoch, shuffle=True):
            torch_optimizer.zero_grad()
            logits = reference(torch.from_numpy(data.inputs(batch, np.float64)))
            total = torch_loss(logits, torch.from_numpy(data.labels[batch]))
            (total if reduction == "sum" else total / len(batch)).backward()
            torch_optimizer.step()
            torch_schedule.step()
            expected_losses[-1] += float(total.detach()) / len(data)
    assert_equal(model, reference)
    reported_losses = [report.metrics["train_loss"] for report in reports if isinstance(report, EpochDone)]
    np.testing.assert_allclose(reported_losses, expected_losses, rtol=1e-10)


@pytest.mark.parametrize("bound", [1e-3, 0.5, 1e3])
@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_ten_clipped_steps_match_pytorch(kind: str, bound: float) -> None:
    """The bounds are below, among and above the gradient norms."""
    rng = np.random.default_rng(0)
    shapes = [(7, 5), (5,), (5, 3), (3,)]
    tensors = [Tensor(rng.standard_normal(shape)) for shape in shapes]
    twins = [torch.nn.Parameter(torch.from_numpy(np.array(tensor))) for tensor in tensors]
    ours = SGD(0.1, 0.9, clip_norm=bound) if kind == "sgd" else Adam(0.1, clip_norm=bound)
    theirs = torch.optim.SGD(twins, 0.1, momentum=0.9) if kind == "sgd" else torch.optim.Adam(twins, 0.1)
    for step in range(10):
        gradients = [rng.standard_normal(shape) * 10.0 ** (step % 3 - 2) for shape in shapes]
        for parameter, gradient in zip(twins, gradients, strict=True):
            parameter.grad = torch.from_numpy(gradient.copy())
        torch.nn.utils.clip_grad_norm_(twins, bound)
        theirs.step()
        ours.apply(tensors, gradients, 0.1)
    for tensor, parameter in zip(tensors, twins, strict=True):
        np.testing.assert_allclose(tensor, parameter.detach().numpy(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_ten_gan_steps_match_pytorch(reduction: str, optimizer: str, schedule: str) -> None:
    generator = network([100, 20, 40, 784], ["tanh"] * 3, seed=1)
    discriminator = network([784, 40, 5, 1], ["leaky_relu", "leaky_relu", "sigmoid"], seed=2)
    g, d = twin(generator), twin(discriminator)
    data = images()
    trainer = GanTrainer(
        generator,
        discriminator,
        OPTIMIZERS[optimizer][0](),
        OPTIMIZERS[optimizer][0](),
        SCHEDULES[schedule][0],
        SCHEDULES[schedule][0],
        train=data,
        latent=Latent(100),
        epochs=EPOCHS,
        batch_size=BATCH,
        shuffle=False,
        seed=3,
        reduction=reduction,
        skip_every=3,
        label_smoothing=0.1,
        dtype=np.float64,
    )
    for _ in trainer.run():
        pass

    torch_optimizers = [OPTIMIZERS[optimizer][1](model.parameters()) for model in (g, d)]
    torch_schedules = [SCHEDULES[schedule][1](torch_optimizer) for torch_optimizer in torch_optimizers]
    cost = torch.nn.functional.binary_cross_entropy_with_logits
    step = 0
    for epoch in range(EPOCHS):
        latent_rng = generator_for(3, "latent", epoch)
        for batch in batches(len(data), BATCH, seed=3, epoch=epoch, shuffle=False):
            noise = torch.from_numpy(trainer.latent.draw(latent_rng, BATCH, np.float64))
            # One pass over the fakes. The generator's twin omits the last activation, tanh.
            fake, real = d(torch.tanh(g(noise))), d(torch.from_numpy(data.inputs(batch, np.float64)))
            g_loss = cost(fake, torch.ones_like(fake), reduction=reduction)
            d_loss = (
                cost(real, torch.full_like(real, 0.9), reduction=reduction)
                + cost(fake, torch.zeros_like(fake), reduction=reduction)
            ) / 2
            g_gradients = torch.autograd.grad(g_loss, list(g.parameters()), retain_graph=True)
            d_gradients = torch.autograd.grad(d_loss, list(d.parameters()))
            for model, gradients in ((g, g_gradients), (d, d_gradients)):
                for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                    parameter.grad = gradient
            torch_optimizers[0].step()
            if step % 3:
                torch_optimizers[1].step()
            for torch_schedule in torch_schedules:
                torch_schedule.step()
            step += 1
    assert_equal(generator, g)
    assert_equal(discriminator, d)
