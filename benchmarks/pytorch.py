"""The same steps in PyTorch, in eager mode. Imported only if PyTorch is installed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from benchmarks import floor
from benchmarks.digits import Sizes
from engine import ImageData, Sequential

ACTIVATIONS = {"sigmoid": torch.nn.Sigmoid, "tanh": torch.nn.Tanh, "leaky_relu": lambda: torch.nn.LeakyReLU(0.2)}


def network(model: Sequential, sizes: Sizes, last: bool = True) -> Any:
    """The same network with the same weights, with or without its last activation."""
    parts: list[Any] = []
    for layer, (inputs, units, activation) in zip(model.layers, sizes, strict=True):
        linear = torch.nn.Linear(inputs, units)
        weight, bias = layer.parameters.values()
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(np.array(weight).T))
            linear.bias.copy_(torch.from_numpy(np.array(bias)))
        parts += [linear, ACTIVATIONS[activation]()]
    return torch.nn.Sequential(*(parts if last else parts[:-1]))


class Images:
    """Batches of images as floats."""

    def __init__(self, data: ImageData) -> None:
        self.rows = torch.from_numpy(data.images.reshape(len(data), -1).copy())
        self.scale = data.scale

    def draw(self, start: int, stop: int) -> Any:
        low, high = self.scale
        return self.rows[start:stop].float().mul_((high - low) / 255).add_(low)


class Classifier:
    """A step with squared error, summed."""

    def __init__(self, model: Any, data: ImageData, batch: int, optimizer: Any) -> None:
        self.model, self.optimizer, self.batch = model, optimizer(model.parameters()), batch
        self.images, self.labels = Images(data), torch.from_numpy(np.array(data.labels))
        self.one_hot = torch.nn.functional.one_hot(self.labels).float()
        self.start, self.count = 0, len(data) // batch * batch

    def step(self) -> float:
        part = slice(self.start, self.start + self.batch)
        self.start = (self.start + self.batch) % self.count
        outputs = self.model(self.images.draw(part.start, part.stop))
        loss = torch.nn.functional.mse_loss(outputs, self.one_hot[part], reduction="sum")
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        torch.count_nonzero(outputs.argmax(dim=1) == self.labels[part]).item()
        return float(loss.item())


class Gan:
    """The step of preset ``seed``: one pass over the fakes, and no unused gradients."""

    def __init__(
        self,
        generator: Any,
        discriminator: Any,
        data: ImageData,
        batch: int,
        optimizer: Any,
        skip_every: int | None,
        latent: int,
    ) -> None:
        self.generator, self.discriminator = generator, discriminator
        self.g_parameters, self.d_parameters = list(generator.parameters()), list(discriminator.parameters())
        self.g_optimizer, self.d_optimizer = optimizer(self.g_parameters), optimizer(self.d_parameters)
        self.images, self.batch, self.latent, self.skip_every = Images(data), batch, latent, skip_every
        self.index, self.count = 0, len(data) // batch * batch
        self.ones, self.zeros = torch.ones(batch, 1), torch.zeros(batch, 1)

    def step(self) -> float:
        start = self.index * self.batch % self.count
        updates_discriminator = self.skip_every is None or self.index % self.skip_every != 0
        self.index += 1
        cost = torch.nn.functional.binary_cross_entropy_with_logits
        fakes = self.generator(torch.rand(self.batch, self.latent).mul_(2).sub_(1))
        fake = self.discriminator(fakes)
        g_loss = cost(fake, self.ones, reduction="sum")
        fake.detach().sigmoid().mean().item()
        g_gradients = torch.autograd.grad(g_loss, self.g_parameters, retain_graph=updates_discriminator)
        if updates_discriminator:
            real = self.discriminator(self.images.draw(start, start + self.batch))
            d_loss = (cost(real, self.ones, reduction="sum") + cost(fake, self.zeros, reduction="sum")) / 2
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
    """The matrix products of a step in PyTorch, which are PyTorch's own floor."""
    calls = [[torch.from_numpy(array) for array in arrays] for arrays in floor.operands(shapes)]

    def run() -> None:
        for left, right, out in calls:
            torch.mm(left, right, out=out)

    return run


def sgd(rate: float) -> Any:
    """A maker of optimizers."""
    return lambda parameters: torch.optim.SGD(parameters, rate)


def adam(rate: float) -> Any:
    """A maker of optimizers."""
    return lambda parameters: torch.optim.Adam(parameters, rate)


def inference(model: Any, data: ImageData) -> Any:
    """Predictions for all images, in parts of 500 as the engine evaluates."""
    images = Images(data)

    def run() -> Any:
        with torch.inference_mode():
            return torch.cat(
                [model(images.draw(i, min(i + 500, len(data)))).argmax(dim=1) for i in range(0, len(data), 500)]
            )

    return run


def evaluation(model: Any, data: ImageData) -> Any:
    """The loss per image and the predictions."""
    images = Images(data)
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(np.array(data.labels))).float()

    def run() -> Any:
        total, predictions = 0.0, []
        with torch.inference_mode():
            for i in range(0, len(data), 500):
                outputs = model(images.draw(i, min(i + 500, len(data))))
                total += torch.nn.functional.mse_loss(outputs, one_hot[i : i + 500], reduction="sum").item()
                predictions.append(outputs.argmax(dim=1))
            return total / len(data), torch.cat(predictions)

    return run
