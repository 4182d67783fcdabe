"""Convolution, pooling and normalization compared with PyTorch in float64.

Each layer alone, and ten steps of both trainers.

``pip install torch``, then ``pytest -m reference tests/engine``.
"""

from typing import Any

import numpy as np
import pytest

from engine import (
    SGD,
    AvgPool2D,
    BatchDone,
    BatchNorm,
    ClassifierTrainer,
    Conv2D,
    Conv2DTranspose,
    Dense,
    EpochDone,
    Flatten,
    GanTrainer,
    GlobalAvgPool2D,
    GradientTape,
    ImageData,
    Latent,
    LayerNorm,
    MaxPool2D,
    Reshape,
    Sequential,
    SoftmaxCrossEntropy,
    Tensor,
    Upsample2D,
    batches,
    generator_for,
    schedules,
)
from engine.nn.layer import Layer
from engine.ops.images.geometry import window

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.nightly, pytest.mark.filterwarnings("ignore:Detected call of")]

BATCH, EPOCHS, STEPS_PER_EPOCH = 8, 5, 2
ACTIVATIONS = {
    None: lambda y: y,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "leaky_relu": lambda y: torch.nn.functional.leaky_relu(y, 0.2),
    "softmax": lambda y: torch.softmax(y, dim=-1),
}
CLOSE = {"rtol": 1e-10, "atol": 1e-10}


@pytest.fixture(autouse=True)
def _float64_by_default() -> Any:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def torch_leaf(array: Any) -> Any:
    return torch.from_numpy(np.array(array)).requires_grad_()


class Twin:
    """The network in PyTorch's functions, with a copy of the weights.

    Inside, images are (batch, channels, height, width).
    """

    def __init__(self, model: Sequential) -> None:
        self.model = model
        self.parameters = {name: torch_leaf(tensor) for name, tensor in model.named_parameters().items()}
        self.buffers = {name: torch.from_numpy(array.copy()) for name, array in model.named_buffers().items()}

    def __call__(self, x: Any, *, training: bool = True, activated: bool = False) -> Any:
        """The logits of ``x`` (batch, inputs) as rows; ``activated`` applies the last activation to them."""
        x = self._images(x, self.model.input_shape)
        for number, layer in enumerate(self.model.layers):
            last = number == len(self.model.layers) - 1
            x = self._apply(number, layer, x, training, activate=activated or not last)
        return self._rows(x)

    def _images(self, x: Any, shape: tuple[int, ...]) -> Any:
        return x if len(shape) == 1 else x.reshape(len(x), *shape).permute(0, 3, 1, 2)

    def _rows(self, x: Any) -> Any:
        return x.permute(0, 2, 3, 1).reshape(len(x), -1) if x.ndim == 4 else x

    def _cropped(self, layer: Conv2DTranspose, uncropped: Any, rows: int, columns: int) -> Any:
        """The ``same`` part of an unpadded transposed convolution: PyTorch cannot crop sides unequally."""
        offsets = [window(size, layer.kernel, layer.stride, "same").before for size in (rows, columns)]
        missing = [
            max(0, size + offset - available)
            for size, offset, available in zip((rows, columns), offsets, uncropped.shape[2:], strict=True)
        ]
        uncropped = torch.nn.functional.pad(uncropped, (0, missing[1], 0, missing[0]))
        return uncropped[:, :, offsets[0] : offsets[0] + rows, offsets[1] : offsets[1] + columns]

    def _apply(self, number: int, layer: Layer, x: Any, training: bool, *, activate: bool) -> Any:
        tensors = {name: value for name, value in (self.parameters | self.buffers).items() if f".{number}." in name}
        tensors = {name.rpartition(".")[2]: value for name, value in tensors.items()}
        functional = torch.nn.functional
        match layer:
            case Dense() if x.ndim == 2:
                y = x @ tensors["weight"] + tensors["bias"]
            case Conv2D():
                rows, columns = (window(size, layer.kernel, layer.stride, layer.padding) for size in x.shape[2:])
                x = functional.pad(x, (columns.before, columns.after, rows.before, rows.after))
                y = functional.conv2d(
                    x, tensors["weight"].permute(3, 2, 0, 1).contiguous(), tensors["bias"], layer.stride
                )
            case Conv2DTranspose():
                weight = tensors["weight"].permute(2, 3, 0, 1)
                uncropped = functional.conv_transpose2d(x, weight, tensors["bias"], layer.stride)
                size = layer.stride if layer.padding == "same" else None
                y = uncropped if size is None else self._cropped(layer, uncropped, x.shape[2] * size, x.shape[3] * size)
            case LayerNorm():
                y = functional.group_norm(x, 1, tensors["scale"], tensors["shift"], layer.epsilon)
            case AvgPool2D():
                return functional.avg_pool2d(x, layer.size)
            case GlobalAvgPool2D():
                return x.mean((2, 3))
            case BatchNorm():
                statistics = (tensors["running_mean"], tensors["running_variance"])
                weights = (tensors["scale"], tensors["shift"])
                y = functional.batch_norm(x, *statistics, *weights, training, 1 - layer.momentum, layer.epsilon)
            case MaxPool2D():
                return functional.max_pool2d(x, layer.size)
            case Upsample2D():
                return functional.interpolate(x, scale_factor=layer.size, mode="nearest")
            case Flatten():
                return self._rows(x)
            case Reshape():
                return self._images(x, layer.shape)
            case _:
                raise AssertionError(layer)
        return ACTIVATIONS[layer.activation](y) if activate else y


def assert_equal(model: Sequential, twin: Twin) -> None:
    for name, tensor in model.named_parameters().items():
        np.testing.assert_allclose(tensor, twin.parameters[name].detach().numpy(), **CLOSE)
    for name, array in model.named_buffers().items():
        np.testing.assert_allclose(array, twin.buffers[name].numpy(), **CLOSE)


LAYERS: dict[str, Any] = {
    **{
        f"conv {kernel} {stride} {padding}": lambda r, k=kernel, s=stride, p=padding: Conv2D(
            3, 4, k, s, p, "tanh", rng=r, dtype=np.float64
        )
        for kernel, stride, padding in (
            *((3, 1, "same"), (3, 2, "same"), (5, 3, "same"), (2, 1, "same")),
            *((3, 1, "valid"), (4, 2, "valid"), (1, 1, "valid")),
        )
    },
    **{
        f"transposed {kernel} {stride} {padding}": lambda r, k=kernel, s=stride, p=padding: Conv2DTranspose(
            3, 4, k, s, p, "tanh", rng=r, dtype=np.float64
        )
        for kernel, stride, padding in (
            *((4, 2, "same"), (3, 2, "same"), (5, 2, "same"), (3, 1, "same"), (3, 3, "same")),
            *((4, 2, "valid"), (3, 1, "valid")),
        )
    },
    "layer_norm": lambda r: LayerNorm(3, "leaky_relu", epsilon=1e-3, dtype=np.float64),
    "avg_pool2d": lambda r: AvgPool2D(3),
    "global_avg_pool2d": lambda r: GlobalAvgPool2D(),
    "batch_norm": lambda r: BatchNorm(3, "leaky_relu", momentum=0.8, epsilon=1e-3, dtype=np.float64),
    "max_pool2d": lambda r: MaxPool2D(3),
    "upsample2d": lambda r: Upsample2D(2),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_layers_and_their_gradients_match_pytorch(name: str, training: bool) -> None:
    rng = generator_for(0, "test")
    layer = LAYERS[name](rng)
    for tensor in layer.parameters.values():
        tensor[...] = rng.standard_normal(tensor.shape)
    shape = layer.output_shape((6, 9, 3))
    options = {"rng": rng, "dtype": np.float64}
    head = Conv2D(shape[2], 2, 1, **options) if len(shape) == 3 else Dense(shape[0], 2, **options)
    model = Sequential([layer, head], (6, 9, 3))
    twin, x = Twin(model), rng.standard_normal((4, 162))
    watched, theirs = Tensor(x, watch=True), torch_leaf(x)
    with GradientTape() as tape:
        y = model(watched, training=training)
    weights = rng.standard_normal(y.shape)
    gradients = tape.gradient(y, [watched, *model.parameters], output_gradients=weights)
    expected = twin(theirs, training=training)
    expected.backward(torch.from_numpy(weights))
    np.testing.assert_allclose(y, expected.detach().numpy(), **CLOSE)
    for ours, parameter in zip(gradients, (theirs, *twin.parameters.values()), strict=True):
        np.testing.assert_allclose(ours, parameter.grad.numpy(), **CLOSE)
    assert_equal(model, twin)


def images(count: int = BATCH * STEPS_PER_EPOCH) -> ImageData:
    rng = np.random.default_rng(0)
    return ImageData(rng.integers(0, 256, (count, 12, 12), np.uint8), rng.integers(0, 10, count), (-1, 1))


def sgd(twin: Twin) -> Any:
    """Not Adam: a bias before a batch norm has round-off as its gradient, which Adam scales to full steps."""
    return torch.optim.SGD(twin.parameters.values(), 0.05, momentum=0.9)


def test_ten_classifier_steps_match_pytorch() -> None:
    rng, options = generator_for(1, "init"), {"dtype": np.float64}
    model = Sequential(
        [
            Conv2D(1, 6, activation="relu", rng=rng, **options),
            MaxPool2D(),
            Conv2D(6, 8, 3, 2, rng=rng, **options),
            BatchNorm(8, "leaky_relu", **options),
            Flatten(),
            Dense(72, 16, rng=rng, **options),
            BatchNorm(16, "tanh", momentum=0.5, **options),
            Dense(16, 10, "softmax", rng=rng, **options),
        ],
        (12, 12, 1),
    )
    twin, data = Twin(model), images()
    trainer = ClassifierTrainer(
        model,
        SoftmaxCrossEntropy(),
        SGD(0.05, 0.9),
        schedules.constant(),
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

    optimizer, cost = sgd(twin), torch.nn.functional.cross_entropy
    train_losses, validation_losses = [], []
    for epoch in range(EPOCHS):
        train_losses.append(0.0)
        for batch in batches(len(data), BATCH, seed=3, epoch=epoch, shuffle=True):
            optimizer.zero_grad()
            loss = cost(twin(torch.from_numpy(data.inputs(batch, np.float64))), torch.from_numpy(data.labels[batch]))
            loss.backward()
            optimizer.step()
            train_losses[-1] += float(loss.detach()) * len(batch) / len(data)
        all_inputs = torch.from_numpy(data.inputs(slice(None), np.float64))
        loss = cost(twin(all_inputs, training=False), torch.from_numpy(data.labels))
        validation_losses.append(float(loss.detach()))
    assert_equal(model, twin)
    epoch_metrics = [report.metrics for report in reports if isinstance(report, EpochDone)]
    np.testing.assert_allclose([metrics["train_loss"] for metrics in epoch_metrics], train_losses, rtol=1e-10)
    np.testing.assert_allclose([metrics["val_loss"] for metrics in epoch_metrics], validation_losses, rtol=1e-10)


def test_ten_gan_steps_match_pytorch() -> None:
    rng, options = generator_for(1, "init"), {"dtype": np.float64}
    generator = Sequential(
        [
            Dense(20, 3 * 3 * 8, rng=rng, **options),
            BatchNorm(72, "relu", **options),
            Reshape((3, 3, 8)),
            Upsample2D(),
            Conv2D(8, 6, 5, rng=rng, **options),
            BatchNorm(6, "relu", **options),
            Upsample2D(),
            Conv2D(6, 1, activation="tanh", rng=rng, **options),
        ]
    )
    discriminator = Sequential(
        [
            Conv2D(1, 6, 4, 2, activation="leaky_relu", rng=rng, **options),
            Conv2D(6, 8, 3, 2, rng=rng, **options),
            BatchNorm(8, "leaky_relu", **options),
            Conv2D(8, 1, 3, 1, "valid", "sigmoid", rng=rng, **options),
        ],
        (12, 12, 1),
    )
    g, d = Twin(generator), Twin(discriminator)
    data = images()
    trainer = GanTrainer(
        generator,
        discriminator,
        SGD(0.05, 0.9),
        SGD(0.05, 0.9),
        schedules.constant(),
        schedules.constant(),
        train=data,
        latent=Latent(20),
        epochs=EPOCHS,
        batch_size=BATCH,
        shuffle=False,
        seed=3,
        skip_every=3,
        label_smoothing=0.1,
        dtype=np.float64,
    )
    for _ in trainer.run():
        pass

    optimizers, cost, step = [sgd(g), sgd(d)], torch.nn.functional.binary_cross_entropy_with_logits, 0
    for epoch in range(EPOCHS):
        latent_rng = generator_for(3, "latent", epoch)
        for batch in batches(len(data), BATCH, seed=3, epoch=epoch, shuffle=False):
            noise = torch.from_numpy(trainer.latent.draw(latent_rng, BATCH, np.float64))
            # Fakes and reals are separate batches, with one pass over the fakes. In a step that skips the
            # discriminator, it sees no reals, and its running statistics are not updated with any.
            fake = d(g(noise, activated=True))
            g_loss = cost(fake, torch.ones_like(fake))
            updates = [(optimizers[0], g, torch.autograd.grad(g_loss, list(g.parameters.values()), retain_graph=True))]
            if step % 3:
                real = d(torch.from_numpy(data.inputs(batch, np.float64)))
                d_loss = (cost(real, torch.full_like(real, 0.9)) + cost(fake, torch.zeros_like(fake))) / 2
                updates.append((optimizers[1], d, torch.autograd.grad(d_loss, list(d.parameters.values()))))
            for optimizer, twin, gradients in updates:
                for parameter, gradient in zip(twin.parameters.values(), gradients, strict=True):
                    parameter.grad = gradient
                optimizer.step()
            step += 1
    assert_equal(generator, g)
    assert_equal(discriminator, d)
