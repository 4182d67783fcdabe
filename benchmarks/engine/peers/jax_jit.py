"""The same steps in JAX, each compiled as a whole with its old weights donated. Imported only where JAX is installed.

A step draws its batch from bytes that lie on the device, and noise and dropout by the fast generator ``rbg``. What a
trainer reports (losses, hits, classifications) is read after each step.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.engine.networks import arrays
from engine import BatchNorm, Conv2D, Dense, Dropout, Flatten, ImageData, MaxPool2D, Reshape, Sequential, Upsample2D
from engine.nn.activations import Activation

Update = Callable[[Any, Any, Any], tuple[Any, Any]]
"""From parameters, gradients and state: the new parameters and state."""

ACTIVATIONS: dict[Any, Callable[[Any], Any]] = {
    None: lambda x: x,
    Activation.SIGMOID: jax.nn.sigmoid,
    Activation.TANH: jnp.tanh,
    Activation.RELU: jax.nn.relu,
    Activation.LEAKY_RELU: lambda x: jnp.maximum(x, 0.2 * x),
    Activation.SOFTMAX: jax.nn.softmax,
}


def forward(model: Sequential, parameters: Any, buffers: Any, x: Any, key: Any, last: bool = True) -> tuple[Any, Any]:
    """The output of a training pass, with or without the last activation, and the running statistics after it."""
    weights, statistics, new_statistics = iter(parameters), iter(buffers), []
    if len(model.input_shape) == 3:
        x = x.reshape(-1, *model.input_shape)
    for layer in model.layers:
        match layer:
            case Dense():
                x = x @ next(weights) + next(weights)
            case Conv2D():
                names = ("NHWC", "HWIO", "NHWC")
                strides = (layer.stride, layer.stride)
                x = lax.conv_general_dilated(x, next(weights), strides, "SAME", dimension_numbers=names) + next(weights)
            case BatchNorm():
                axes = tuple(range(x.ndim - 1))
                mean, variance = jnp.mean(x, axes), jnp.var(x, axes)
                x = (x - mean) * (lax.rsqrt(variance + layer.epsilon) * next(weights)) + next(weights)
                count = x.size // layer.features
                values = (mean, variance * (count / (count - 1)))
                new_statistics += [layer.momentum * next(statistics) + (1 - layer.momentum) * value for value in values]
            case MaxPool2D():
                batch, height, width, channels = x.shape
                size = layer.size
                x = x.reshape(batch, height // size, size, width // size, size, channels).max((2, 4))
            case Upsample2D():
                x = jnp.repeat(jnp.repeat(x, layer.size, 1), layer.size, 2)
            case Flatten():
                x = x.reshape(len(x), -1)
            case Reshape():
                x = x.reshape(len(x), *layer.shape)
            case Dropout():
                key, dropout_key = jax.random.split(key)
                is_kept = jax.random.bits(dropout_key, x.shape, jnp.uint16) >= round(layer.rate * 2**16)
                x = jnp.where(is_kept, x / (1 - layer.rate), 0)
            case _:
                raise TypeError(layer)
        activation = getattr(layer, "activation", None)
        if activation is not None and (last or layer is not model.last):
            x = ACTIVATIONS[activation](x)
    return x.reshape(len(x), -1), new_statistics


def sgd(rate: float) -> tuple[Update, Any]:
    """The update, and a function that creates its initial state."""

    def update(parameters: Any, gradients: Any, state: Any) -> tuple[Any, Any]:
        return [p - rate * g for p, g in zip(parameters, gradients, strict=True)], state

    return update, lambda parameters: ()


def adam(rate: float, beta1: float = 0.9, decay: float = 0.0) -> tuple[Update, Any]:
    """As :func:`sgd`; with a decay: AdamW."""
    beta2, epsilon = 0.999, 1e-8

    def update(parameters: Any, gradients: Any, state: Any) -> tuple[Any, Any]:
        steps, first, second = state
        steps = steps + 1
        first = [beta1 * m + (1 - beta1) * g for m, g in zip(first, gradients, strict=True)]
        second = [beta2 * v + (1 - beta2) * g * g for v, g in zip(second, gradients, strict=True)]
        correction1, correction2 = 1 - beta1**steps, 1 - beta2**steps
        new_parameters = [
            p * (1 - rate * decay) - rate * (m / correction1) / (jnp.sqrt(v / correction2) + epsilon)
            for p, m, v in zip(parameters, first, second, strict=True)
        ]
        return new_parameters, (steps, first, second)

    def begin(parameters: Any) -> Any:
        return jnp.float32(0), [jnp.zeros_like(p) for p in parameters], [jnp.zeros_like(p) for p in parameters]

    return update, begin


class _Images:
    def __init__(self, data: ImageData) -> None:
        self.rows = jnp.asarray(data.images.reshape(len(data), -1))
        self.low, self.factor = data.scale[0], (data.scale[1] - data.scale[0]) / 255

    def draw(self, rows: Any, start: Any, batch: int) -> Any:
        return lax.dynamic_slice_in_dim(rows, start, batch).astype(jnp.float32) * self.factor + self.low


def squared_error(outputs: Any, labels: Any) -> Any:
    """Summed."""
    return jnp.sum((outputs - jax.nn.one_hot(labels, outputs.shape[1])) ** 2)


def smoothed_cross_entropy(logits: Any, labels: Any) -> Any:
    """The mean, with label smoothing 0.1."""
    target = 0.9 * jax.nn.one_hot(labels, logits.shape[1]) + 0.1 / logits.shape[1]
    return -jnp.sum(target * jax.nn.log_softmax(logits)) / len(logits)


class Classifier:
    """A step; ``loss`` is one of the two above, the second one on logits."""

    def __init__(self, model: Sequential, data: ImageData, batch: int, optimizer: Any, loss: Any) -> None:
        images, (update, begin) = _Images(data), optimizer
        self.parameters, self.buffers = jax.tree.map(jnp.asarray, arrays(model))
        self.state, self.key = begin(self.parameters), jax.random.key(0, impl="rbg")
        self.rows, self.labels = images.rows, jnp.asarray(np.array(data.labels))
        self.start, self.batch, self.count = 0, batch, len(data) // batch * batch

        @partial(jax.jit, donate_argnums=(0, 1, 2, 3))
        def step(parameters: Any, buffers: Any, state: Any, key: Any, rows: Any, labels: Any, start: Any) -> Any:
            x, targets = images.draw(rows, start, batch), lax.dynamic_slice_in_dim(labels, start, batch)
            key, dropout_key = jax.random.split(key)

            def cost(parameters: Any) -> Any:
                outputs, new_buffers = forward(model, parameters, buffers, x, dropout_key, last=loss is squared_error)
                return loss(outputs, targets), (outputs, new_buffers)

            (value, (outputs, new_buffers)), gradients = jax.value_and_grad(cost, has_aux=True)(parameters)
            hits = jnp.sum(jnp.argmax(outputs, 1) == targets)
            return *update(parameters, gradients, state), new_buffers, key, value, hits

        self._step = step

    def step(self) -> float:
        arguments = (self.parameters, self.buffers, self.state, self.key, self.rows, self.labels, self.start)
        self.parameters, self.state, self.buffers, self.key, value, hits = self._step(*arguments)
        self.start = (self.start + self.batch) % self.count
        int(hits)
        return float(value)


class Gan:
    """A step: one pass over the fakes, and no unused gradients."""

    def __init__(
        self,
        generator: Sequential,
        discriminator: Sequential,
        data: ImageData,
        batch: int,
        optimizers: tuple[Any, Any],
        skip_every: int | None = None,
        *,
        reduction: str = "sum",
        smoothing: float = 0.0,
        distribution: str = "uniform",
    ) -> None:
        images, ((g_update, g_begin), (d_update, d_begin)) = _Images(data), optimizers
        self.g, self.g_buffers = jax.tree.map(jnp.asarray, arrays(generator))
        self.d, _ = jax.tree.map(jnp.asarray, arrays(discriminator))
        self.g_state, self.d_state = g_begin(self.g), d_begin(self.d)
        self.key, self.rows = jax.random.key(0, impl="rbg"), images.rows
        self.index, self.batch, self.count, self.skip_every = 0, batch, len(data) // batch * batch, skip_every
        weight = 1 if reduction == "sum" else 1 / batch

        def cost(logits: Any, target: float) -> Any:
            return weight * jnp.sum(jnp.maximum(logits, 0) - logits * target + jnp.log1p(jnp.exp(-jnp.abs(logits))))

        def draw(key: Any) -> Any:
            if distribution == "uniform":
                return jax.random.uniform(key, (batch, generator.inputs), minval=-1, maxval=1)
            return jax.random.normal(key, (batch, generator.inputs))

        def discriminate(d: Any, x: Any, key: Any) -> Any:
            return forward(discriminator, d, [], x, key, last=False)[0]

        def verdict(logits: Any) -> Any:
            return jnp.mean(jax.nn.sigmoid(logits))

        def both(g: Any, g_buffers: Any, g_state: Any, d: Any, d_state: Any, key: Any, rows: Any, start: Any) -> Any:
            key, noise_key, first, second = jax.random.split(key, 4)
            return *learn(g, g_buffers, g_state, d, d_state, draw(noise_key), rows, start, (first, second)), key

        def learn(
            g: Any, g_buffers: Any, g_state: Any, d: Any, d_state: Any, noise: Any, rows: Any, start: Any, keys: Any
        ) -> Any:
            fakes, to_generator, new_buffers = jax.vjp(
                lambda g: forward(generator, g, g_buffers, noise, keys[0]), g, has_aux=True
            )
            logits, to_both = jax.vjp(lambda d, x: discriminate(d, x, keys[0]), d, fakes)
            g_loss, slope = jax.value_and_grad(cost)(logits, 1.0)
            (g_gradients,) = to_generator(to_both(slope)[1])
            real, to_discriminator = jax.vjp(lambda d: discriminate(d, images.draw(rows, start, batch), keys[1]), d)
            real_loss, real_slope = jax.value_and_grad(cost)(real, 1.0 - smoothing)
            fake_loss, fake_slope = jax.value_and_grad(cost)(logits, 0.0)
            d_gradients = jax.tree.map(jnp.add, to_discriminator(real_slope / 2)[0], to_both(fake_slope / 2)[0])
            numbers = (g_loss, (real_loss + fake_loss) / 2, verdict(logits), verdict(real))
            return *g_update(g, g_gradients, g_state), new_buffers, *d_update(d, d_gradients, d_state), numbers

        def skips(g: Any, g_buffers: Any, g_state: Any, d: Any, key: Any) -> Any:
            key, noise_key, dropout_key = jax.random.split(key, 3)

            def loss(g: Any) -> Any:
                fakes, new_buffers = forward(generator, g, g_buffers, draw(noise_key), dropout_key)
                logits = discriminate(d, fakes, dropout_key)
                return cost(logits, 1.0), (new_buffers, logits)

            (value, (new_buffers, logits)), gradients = jax.value_and_grad(loss, has_aux=True)(g)
            return *g_update(g, gradients, g_state), new_buffers, (value, verdict(logits)), key

        self.learn = jax.jit(learn)
        self._both = jax.jit(both, donate_argnums=range(6))
        self._skips = jax.jit(skips, donate_argnums=(0, 1, 2, 4))

    def step(self) -> float:
        start = self.index * self.batch % self.count
        learns = self.skip_every is None or self.index % self.skip_every != 0
        self.index += 1
        state = (self.g, self.g_buffers, self.g_state, self.d)
        if learns:
            results = self._both(*state, self.d_state, self.key, self.rows, start)
            self.g, self.g_state, self.g_buffers, self.d, self.d_state, numbers, self.key = results
        else:
            self.g, self.g_state, self.g_buffers, numbers, self.key = self._skips(*state, self.key)
        g_loss, *_ = [float(number) for number in numbers]
        return g_loss


def whole_set(model: Sequential, data: ImageData, chunk_size: int, *, losses: bool) -> Callable[[], Any]:
    """Predictions for all images, in chunks like the engine's evaluation, and with ``losses`` the loss per image."""
    images = _Images(data)
    parameters, buffers = jax.tree.map(jnp.asarray, arrays(model))
    labels = jnp.asarray(np.array(data.labels))

    @jax.jit
    def predict(parameters: Any, rows: Any, labels: Any, start: Any) -> Any:
        outputs, _ = forward(model, parameters, buffers, images.draw(rows, start, chunk_size), None)
        predictions = jnp.argmax(outputs, 1)
        if not losses:
            return predictions, 0.0
        return predictions, squared_error(outputs, lax.dynamic_slice_in_dim(labels, start, chunk_size))

    def run() -> Any:
        results = [predict(parameters, images.rows, labels, start) for start in range(0, len(data), chunk_size)]
        predictions = np.concatenate([np.asarray(batch_predictions) for batch_predictions, _ in results])
        return (sum(float(value) for _, value in results) / len(data), predictions) if losses else predictions

    return run
