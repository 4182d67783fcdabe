"""The same steps in PyTorch, eager mode. Imported only where PyTorch is installed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from benchmarks.engine import floor
from engine import BatchNorm, Conv2D, Dense, Dropout, Flatten, ImageData, MaxPool2D, Reshape, Sequential, Upsample2D
from engine.nn.activations import Activation
from engine.ops.images.geometry import window

ACTIVATIONS: dict[Any, Any] = {
    Activation.SIGMOID: torch.nn.Sigmoid,
    Activation.TANH: torch.nn.Tanh,
    Activation.RELU: torch.nn.ReLU,
    Activation.LEAKY_RELU: lambda: torch.nn.LeakyReLU(0.2),
    Activation.SOFTMAX: lambda: torch.nn.Softmax(1),
}


class _Rows(torch.nn.Module):
    """Images (batch, channels, height, width) as rows, in the order of the engine."""

    def forward(self, x: Any) -> Any:
        return x.permute(0, 2, 3, 1).flatten(1)


class _Images(torch.nn.Module):
    """The inverse."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Any) -> Any:
        return x.reshape(-1, *self.shape).permute(0, 3, 1, 2)


def network(model: Sequential, last: bool = True) -> Any:
    """The same network with the same weights, with or without its last activation."""
    modules: list[Any] = [_Images(model.input_shape)] if len(model.input_shape) == 3 else []
    shape = model.input_shape
    for layer, output_shape in zip(model.layers, model.layer_shapes, strict=True):
        match layer:
            case Dense():
                modules.append(torch.nn.Linear(layer.inputs, layer.units))
                _copy(modules[-1].weight, np.array(layer.weight).T)
                _copy(modules[-1].bias, layer.bias)
            case Conv2D():
                sides = [window(size, layer.kernel, layer.stride, layer.padding) for size in shape[:2]]
                same = all(side.before == side.after for side in sides)
                if not same:
                    rows, columns = sides
                    modules.append(torch.nn.ZeroPad2d((columns.before, columns.after, rows.before, rows.after)))
                padding = sides[0].before if same else 0
                modules.append(torch.nn.Conv2d(layer.channels, layer.filters, layer.kernel, layer.stride, padding))
                _copy(modules[-1].weight, np.array(layer.weight).transpose(3, 2, 0, 1))
                _copy(modules[-1].bias, layer.bias)
            case BatchNorm():
                kind = torch.nn.BatchNorm2d if len(shape) == 3 else torch.nn.BatchNorm1d
                modules.append(kind(layer.features, layer.epsilon, 1 - layer.momentum))
            case MaxPool2D():
                modules.append(torch.nn.MaxPool2d(layer.size))
            case Upsample2D():
                modules.append(torch.nn.Upsample(scale_factor=layer.size))
            case Flatten():
                modules.append(_Rows())
            case Reshape():
                modules.append(_Images(layer.shape))
            case Dropout():
                modules.append(torch.nn.Dropout(layer.rate))
            case _:
                raise TypeError(layer)
        activation = getattr(layer, "activation", None)
        if activation is not None and (last or layer is not model.last):
            modules.append(ACTIVATIONS[activation]())
        shape = output_shape
    if len(shape) == 3:
        modules.append(_Rows())
    return torch.nn.Sequential(*modules)


def _copy(target: Any, values: Any) -> None:
    with torch.no_grad():
        target.copy_(torch.from_numpy(np.array(values)))


class Images:
    """Batches of images as floats."""

    def __init__(self, data: ImageData) -> None:
        self.rows = torch.from_numpy(data.images.reshape(len(data), -1).copy())
        self.scale = data.scale

    def draw(self, start: int, stop: int) -> Any:
        low, high = self.scale
        return self.rows[start:stop].float().mul_((high - low) / 255).add_(low)


def squared_error(outputs: Any, labels: Any, one_hot: Any) -> Any:
    """Summed."""
    return torch.nn.functional.mse_loss(outputs, one_hot, reduction="sum")


def smoothed_cross_entropy(logits: Any, labels: Any, one_hot: Any) -> Any:
    """The mean, with label smoothing 0.1."""
    return torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)


class Classifier:
    """A step with one of the two losses above, the second one on logits."""

    def __init__(self, model: Any, data: ImageData, batch: int, optimizer: Any, loss: Any = squared_error) -> None:
        self.model, self.optimizer, self.batch = model, optimizer(model.parameters()), batch
        self.images, self.labels, self.loss = Images(data), torch.from_numpy(np.array(data.labels)), loss
        self.one_hot = torch.nn.functional.one_hot(self.labels).float()
        self.start, self.count = 0, len(data) // batch * batch

    def step(self) -> float:
        batch = slice(self.start, self.start + self.batch)
        self.start = (self.start + self.batch) % self.count
        outputs = self.model(self.images.draw(batch.start, batch.stop))
        loss = self.loss(outputs, self.labels[batch], self.one_hot[batch])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        torch.count_nonzero(outputs.argmax(dim=1) == self.labels[batch]).item()
        return float(loss.item())


class Gan:
    """A step: one pass over the fakes, and no unused gradients."""

    def __init__(
        self,
        generator: Any,
        discriminator: Any,
        data: ImageData,
        batch: int,
        optimizers: tuple[Any, Any],
        skip_every: int | None,
        latent: int,
        *,
        reduction: str = "sum",
        smoothing: float = 0.0,
        distribution: str = "uniform",
    ) -> None:
        self.generator, self.discriminator = generator, discriminator
        self.g_parameters, self.d_parameters = list(generator.parameters()), list(discriminator.parameters())
        self.g_optimizer, self.d_optimizer = optimizers[0](self.g_parameters), optimizers[1](self.d_parameters)
        self.images, self.batch, self.latent, self.skip_every = Images(data), batch, latent, skip_every
        self.index, self.count = 0, len(data) // batch * batch
        self.reduction, self.distribution = reduction, distribution
        self.ones, self.zeros = torch.ones(batch, 1), torch.zeros(batch, 1)
        self.real_targets = self.ones * (1 - smoothing)

    def noise(self) -> Any:
        if self.distribution == "uniform":
            return torch.rand(self.batch, self.latent).mul_(2).sub_(1)
        return torch.randn(self.batch, self.latent)

    def step(self) -> float:
        start = self.index * self.batch % self.count
        updates_discriminator = self.skip_every is None or self.index % self.skip_every != 0
        self.index += 1
        cost, options = torch.nn.functional.binary_cross_entropy_with_logits, {"reduction": self.reduction}
        fakes = self.generator(self.noise())
        fake = self.discriminator(fakes)
        g_loss = cost(fake, self.ones, **options)
        fake.detach().sigmoid().mean().item()
        g_gradients = torch.autograd.grad(g_loss, self.g_parameters, retain_graph=updates_discriminator)
        if updates_discriminator:
            real = self.discriminator(self.images.draw(start, start + self.batch))
            d_loss = (cost(real, self.real_targets, **options) + cost(fake, self.zeros, **options)) / 2
            d_loss.item()
            real.detach().sigmoid().mean().item()
            self._update(self.d_optimizer, self.d_parameters, torch.autograd.grad(d_loss, self.d_parameters))
        self._update(self.g_optimizer, self.g_parameters, g_gradients)
        return float(g_loss.item())

    @staticmethod
    def _update(optimizer: Any, parameters: Any, gradients: Any) -> None:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()


def products(shapes: list[floor.Shapes]) -> Any:
    """The matrix products of a step in PyTorch: its own floor."""
    calls = [[torch.from_numpy(array) for array in arrays] for arrays in floor.operands(shapes)]

    def run() -> None:
        for left, right, out in calls:
            torch.mm(left, right, out=out)

    return run


def sgd(rate: float) -> Any:
    """A function that creates optimizers."""
    return lambda parameters: torch.optim.SGD(parameters, rate)


def adam(rate: float, beta1: float = 0.9, decay: float = 0.0) -> Any:
    """A function that creates optimizers; with a decay: AdamW."""
    kind = torch.optim.AdamW if decay else torch.optim.Adam
    return lambda parameters: kind(parameters, rate, (beta1, 0.999), weight_decay=decay)


def whole_set(model: Any, data: ImageData, chunk_size: int, *, losses: bool) -> Any:
    """Predictions for all images, in chunks like the engine's evaluation, and with ``losses`` the loss per image."""
    images = Images(data)
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(np.array(data.labels))).float()

    def run() -> Any:
        total, predictions = 0.0, []
        with torch.inference_mode():
            for i in range(0, len(data), chunk_size):
                outputs = model(images.draw(i, min(i + chunk_size, len(data))))
                if losses:
                    total += squared_error(outputs, None, one_hot[i : i + chunk_size]).item()
                predictions.append(outputs.argmax(dim=1))
            result = torch.cat(predictions).numpy()
        return (total / len(data), result) if losses else result

    return run
