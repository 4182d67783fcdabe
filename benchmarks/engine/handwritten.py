"""The steps written by hand with NumPy only: no tape, every array allocated once, ``out=`` everywhere.

They do everything that the trainers do in a step (gather and convert images, loss, accuracy or ``d_real`` and
``d_fake``, update) with the same bits, which ``tests/benchmarks/test_engine.py`` checks. The code is not general; the
engine is measured against it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.engine.digits import Sizes
from engine import ImageData, Latent, Sequential, generator_for

Array = np.ndarray[Any, Any]


class Images:
    """Batches of images, gathered and converted into one array."""

    def __init__(self, data: ImageData, batch: int) -> None:
        self.rows = data.images.reshape(len(data), -1)
        self.scale = data.scale
        self.bytes = np.empty((batch, self.rows.shape[1]), np.uint8)
        self.floats = np.empty(self.bytes.shape, np.float32)

    def draw(self, indices: Array) -> Array:
        low, high = self.scale
        np.take(self.rows, indices, axis=0, out=self.bytes, mode="clip")
        np.copyto(self.floats, self.bytes)
        np.multiply(self.floats, (high - low) / 255, out=self.floats)
        if low:
            np.add(self.floats, low, out=self.floats)
        return self.floats


class Layer:
    """``activation(x @ w + b)``, with the arrays that one pass forward and back needs.

    Args:
        columns: whether rows lie in memory as columns, which makes the gradient of the input faster.
    """

    def __init__(self, weight: Array, bias: Array, activation: str, batch: int, columns: bool = False) -> None:
        self.w, self.b, self.activation, order = weight, bias, activation, "F" if columns else "C"
        self.y = np.empty((batch, weight.shape[1]), np.float32, order)
        self.slope = np.empty_like(self.y)
        self.positive = np.empty(self.y.shape, np.bool_, order)
        self.dx = np.empty((batch, weight.shape[0]), np.float32, order)
        self.dw, self.db = np.empty_like(weight), np.empty_like(bias)
        self.ones = np.ones(batch, np.float32)

    def logits(self, x: Array) -> Array:
        self.x = x
        np.matmul(x, self.w, out=self.y)
        np.add(self.y, self.b, out=self.y)
        return self.y

    def forward(self, x: Array) -> Array:
        y = self.logits(x)
        if self.activation == "sigmoid":
            sigmoid(y, y)
        elif self.activation == "tanh":
            np.tanh(y, out=y)
        else:
            np.multiply(y, 0.2, out=self.slope)
            np.maximum(y, self.slope, out=y)
        return y

    def through_activation(self, g: Array) -> Array:
        y, slope = self.y, self.slope
        if self.activation == "sigmoid":
            np.subtract(1, y, out=slope)
            np.multiply(slope, y, out=slope)
        elif self.activation == "tanh":
            np.multiply(y, y, out=slope)
            np.subtract(1, slope, out=slope)
        else:
            np.greater(y, 0, out=self.positive)
            np.copyto(slope, self.positive)
            np.multiply(slope, 1 - 0.2, out=slope)
            np.add(slope, 0.2, out=slope)
        np.multiply(slope, g, out=slope)
        return slope

    def back_to_input(self, g: Array) -> Array:
        return np.matmul(g, self.w.T, out=self.dx)

    def back_to_parameters(self, g: Array) -> None:
        np.matmul(self.x.T, g, out=self.dw)
        np.vecmat(self.ones, g, out=self.db)


def sigmoid(x: Array, out: Array) -> None:
    np.negative(x, out=out)
    np.exp(out, out=out)
    np.add(out, 1, out=out)
    np.divide(1, out, out=out)


def sgd(p: Array, g: Array, rate: float) -> None:
    np.multiply(g, rate, out=g)
    np.subtract(p, g, out=p)


def layers_of(model: Sequential, sizes: Sizes, batch: int, columns: bool = False) -> list[Layer]:
    """Layers on copies of a model's weights."""
    values = [np.array(tensor) for tensor in model.parameters]
    return [Layer(values[2 * i], values[2 * i + 1], size[2], batch, columns) for i, size in enumerate(sizes)]


class Classifier:
    """The step of a classifier with squared error, summed, and SGD: any number of layers."""

    def __init__(self, model: Sequential, sizes: Sizes, data: ImageData, batch: int, rate: float) -> None:
        self.layers = layers_of(model, sizes, batch)
        self.images = Images(data, batch)
        self.labels = data.labels
        self.one_hot = np.zeros((len(data), model.units), np.float32)
        self.one_hot[np.arange(len(data)), data.labels] = 1
        self.difference = np.empty((batch, model.units), np.float32)
        self.batch, self.rate, self.count = batch, rate, len(data) // batch * batch
        self.start = 0
        self.order = np.arange(len(data))

    def step(self) -> float:
        chosen = self.order[self.start : self.start + self.batch]
        self.start = (self.start + self.batch) % self.count
        y = self.images.draw(chosen)
        for layer in self.layers:
            y = layer.forward(y)
        difference = np.subtract(y, self.one_hot[chosen], out=self.difference)
        flat = difference.ravel()
        loss = float(np.dot(flat, flat))
        np.count_nonzero(y.argmax(axis=1) == self.labels[chosen])
        g = np.multiply(difference, 2, out=difference)
        for layer in reversed(self.layers):
            g = layer.through_activation(g)
            layer.back_to_parameters(g)
            if layer is not self.layers[0]:
                g = layer.back_to_input(g)
        for layer in self.layers:
            sgd(layer.w, layer.dw, self.rate)
            sgd(layer.b, layer.db, self.rate)
        return loss


class Gan:
    """The step of the GAN of preset ``classic``: cross-entropies, summed, and SGD."""

    def __init__(
        self,
        generator: tuple[Sequential, Sizes],
        discriminator: tuple[Sequential, Sizes],
        data: ImageData,
        batch: int,
        rate: float,
        skip_every: int | None,
    ) -> None:
        self.generator = layers_of(*generator, batch, columns=True)
        self.on_fakes = layers_of(*discriminator, batch, columns=True)
        # The same weights, with other arrays for the pass over the reals.
        self.on_reals = [Layer(layer.w, layer.b, layer.activation, batch) for layer in self.on_fakes]
        self.images = Images(data, batch)
        self.latent, self.rng = Latent(generator[0].inputs), generator_for(0, "latent", 0)
        self.batch, self.rate, self.skip_every = batch, rate, skip_every
        self.count, self.order = len(data) // batch * batch, np.arange(len(data))
        self.index = 0
        self.fake, self.real, self.for_generator = (np.empty((batch, 1), np.float32) for _ in range(3))

    def step(self) -> float:
        start = self.index * self.batch % self.count
        updates_discriminator = self.skip_every is None or self.index % self.skip_every != 0
        self.index += 1
        fakes = self.latent.draw(self.rng, self.batch, np.float32)
        for layer in self.generator:
            fakes = layer.forward(fakes)
        logits = discriminate(self.on_fakes, fakes)
        g_loss = cross_entropy(logits, 1.0)
        sigmoid(logits, self.fake)
        float(np.mean(self.fake))  # the reported ``d_fake``
        g = np.subtract(self.fake, 1.0, out=self.for_generator)
        for layer in reversed(self.on_fakes):
            g = g if layer is self.on_fakes[-1] else layer.through_activation(g)
            g = layer.back_to_input(g)
        for layer in reversed(self.generator):
            g = layer.through_activation(g)
            layer.back_to_parameters(g)
            if layer is not self.generator[0]:
                g = layer.back_to_input(g)
        if updates_discriminator:
            real_logits = discriminate(self.on_reals, self.images.draw(self.order[start : start + self.batch]))
            cross_entropy(real_logits, 1.0)
            cross_entropy(logits, 0.0)
            sigmoid(real_logits, self.real)
            float(np.mean(self.real))
            np.subtract(self.real, 1.0, out=self.real)
            for layers, g in ((self.on_reals, self.real), (self.on_fakes, self.fake)):
                np.multiply(g, 0.5, out=g)
                for layer in reversed(layers):
                    g = g if layer is layers[-1] else layer.through_activation(g)
                    layer.back_to_parameters(g)
                    if layer is not layers[0]:
                        g = layer.back_to_input(g)
        for layer in self.generator:
            sgd(layer.w, layer.dw, self.rate)
            sgd(layer.b, layer.db, self.rate)
        if updates_discriminator:
            for real, fake in zip(self.on_reals, self.on_fakes, strict=True):
                sgd(real.w, np.add(real.dw, fake.dw, out=real.dw), self.rate)
                sgd(real.b, np.add(real.db, fake.db, out=real.db), self.rate)
        return g_loss


def discriminate(layers: list[Layer], images: Array) -> Array:
    """The discriminator's logits."""
    for layer in layers[:-1]:
        images = layer.forward(images)
    return layers[-1].logits(images)


def cross_entropy(logits: Array, target: float) -> float:
    loss = np.log1p(np.exp(-np.abs(logits)))
    loss += np.maximum(logits, 0)
    loss -= np.multiply(logits, target)
    return float(np.sum(loss))
