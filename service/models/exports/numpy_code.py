"""Generates a short NumPy program for the layers of a model, for the model card."""

from __future__ import annotations

import math
from typing import Final, assert_never

from service.models.exports.facts import NotExportable
from service.models.exports.trained import PlacedLayer, TrainedModel, zeros_around
from service.spec import schema
from service.spec.schema import Activation

_CONV: Final = """\
def conv(x, n, stride, rows, columns):  # pad with zeros, then multiply patches by weights
    k, x = w[f"layers.{n}.weight"], np.pad(x, ((0, 0), rows, columns, (0, 0)))
    patches = np.lib.stride_tricks.sliding_window_view(x, k.shape[:2], (1, 2))[:, ::stride, ::stride]
    return np.einsum("nrcxij,ijxf->nrcf", patches, k, optimize=True) + w[f"layers.{n}.bias"]
"""
_NORM: Final = """\
def norm(x, n, epsilon):
    factor = w[f"layers.{n}.scale"] / np.sqrt(w[f"layers.{n}.running_variance"] + epsilon)
    return (x - w[f"layers.{n}.running_mean"]) * factor + w[f"layers.{n}.shift"]
"""
_FEATURES: Final = """\
def features(rows):  # dicts by column name; missing: None, or left out; dates: days since 1970-01-01
    made = []
    for c in columns:
        values = [row.get(c["name"]) for row in rows]
        if "categories" in c:
            made += [[value == category for value in values] for category in c["categories"]]
            missing = [value not in c["categories"] for value in values]
        else:
            values = np.array([np.nan if value is None else value for value in values], np.float64)
            made, missing = [*made, np.nan_to_num((values - c["mean"]) / c["scale"])], np.isnan(values)
        made += [missing] if c["indicator"] else []
    return np.array(made, np.float64).T
"""
_WIDTH: Final = 110
PREPROCESSING: Final = "preprocessing.json"
_BOUNDED: Final = (Activation.SIGMOID, Activation.SOFTMAX)


def numpy_code(model: TrainedModel, weights: str) -> str:
    """The text of a program that defines ``predict(images)``, or ``generate(latent)`` for a generator.

    Args:
        weights: the name of the safetensors file.
    """
    kinds = {type(placed.layer) for placed in model.layers}
    lines = ["import json", "from pathlib import Path", ""] if model.is_table else []
    lines += ["import numpy as np", "from safetensors.numpy import load_file", "", f'w = load_file("{weights}")']
    lines += (
        [f'columns = json.loads(Path("{PREPROCESSING}").read_text())["columns"]', *_block(_FEATURES)]
        if model.is_table
        else []
    )
    lines += _block(_CONV) if schema.Conv2D in kinds else []
    lines += _block(_NORM) if schema.BatchNorm in kinds else []
    body = _Body()
    low, high = model.scale
    shape, sides = (", ".join(map(str, size)) for size in (model.image_shape, model.input_size))
    dtype = f"np.{model.spec.dtype.value}"
    if model.is_table:
        lines += ["", "", "def predict(rows):  # to probabilities"]
        body.set(f"features(rows).astype({dtype})")
    elif model.generates:
        lines += ["", "", f"def generate(latent):  # (N, {sides}) to (N, {shape}), levels 0 to 255"]
        body.set(f"latent.astype({dtype})")
    else:
        lines += ["", "", f"def predict(images):  # (N, {shape}), levels 0 to 255, to probabilities"]
        body.set(
            f"images.reshape(-1, {sides}) * {dtype}({high - low!r} / 255)" + (f" + {dtype}({low!r})" if low else "")
        )
    for placed in model.layers:
        _add(body, placed)
    if model.generates:
        body.finish(f"return np.clip((x - {low!r}) * {255 / (high - low)!r}, 0, 255).reshape(-1, {shape})")
    else:
        if len(model.layers[-1].after) == 3:
            body.chain(f".reshape(-1, {math.prod(model.layers[-1].after)})")
        bounded = getattr(model.layers[-1].layer, "activation", None) in _BOUNDED
        body.finish("return x" if bounded else "return np.clip(x, 0, 1)")
    return "\n".join([*lines, *(f"    {line}" for line in body.lines)]) + "\n"


def _block(function: str) -> list[str]:
    return ["", "", *function.splitlines()]


class _Body:
    """A sequence of assignments to ``x``. Short expressions are merged into the previous line."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._value = ""

    def set(self, value: str) -> None:
        """Set ``x`` to ``value``, an expression of ``x``."""
        self._flush()
        self._value = value

    def wrap(self, before: str, after: str) -> None:
        """Set ``x`` to ``before x after``."""
        if len(self._value) + len(before + after) > _WIDTH:
            self.set("x")
        self._value = f"{before}{self._value}{after}"

    def chain(self, call: str) -> None:
        """Set ``x`` to ``x.call``."""
        simple = self._value.endswith(")") and not set(self._value) & set("*/@")
        if not simple or len(self._value) + len(call) > _WIDTH:
            self.set("x")
        self._value += call

    def finish(self, line: str) -> None:
        """End with a line that uses ``x``."""
        if line == "return x" and self._value:
            line, self._value = f"return {self._value}", ""
        self._flush()
        self.lines.append(line)

    def _flush(self) -> None:
        if self._value and self._value != "x":
            self.lines.append(f"x = {self._value}")
        self._value = ""


def _add(body: _Body, placed: PlacedLayer) -> None:
    layer, number, before = placed.layer, placed.number, placed.before
    match layer:
        case schema.Dense():
            body.set(f'x @ w["layers.{number}.weight"] + w["layers.{number}.bias"]')
            _activate(body, layer)
        case schema.Conv2D():
            top, left, bottom, right = zeros_around(layer, before, placed.after)
            body.set(f"conv(x, {number}, {layer.stride}, ({top}, {bottom}), ({left}, {right}))")
            _activate(body, layer)
        case schema.BatchNorm():
            body.wrap("norm(", f", {number}, {layer.epsilon!r})")
            _activate(body, layer)
        case schema.MaxPool2D():
            rows, columns, channels = placed.after
            body.chain(f".reshape(-1, {rows}, {layer.size}, {columns}, {layer.size}, {channels}).max((2, 4))")
        case schema.Upsample2D():
            body.chain(f".repeat({layer.size}, 1).repeat({layer.size}, 2)")
        case schema.Flatten():
            if len(before) == 3:
                body.chain(f".reshape(-1, {math.prod(before)})")
        case schema.Reshape():
            body.chain(f".reshape(-1, {', '.join(map(str, layer.shape))})")
        case schema.Dropout():
            pass
        case (
            schema.Conv2DTranspose()
            | schema.AvgPool2D()
            | schema.GlobalAvgPool2D()
            | schema.LayerNorm()
            | schema.Residual()
        ):
            raise NotExportable(f"a layer {layer.type}")
        case _:
            assert_never(layer)


def _activate(body: _Body, layer: schema.Dense | schema.Conv2D | schema.BatchNorm) -> None:
    match layer.activation:
        case Activation.LINEAR:
            pass
        case Activation.SIGMOID:
            body.wrap("1 / (1 + np.exp(-(", ")))")
        case Activation.TANH:
            body.wrap("np.tanh(", ")")
        case Activation.RELU:
            body.wrap("np.maximum(", ", 0)")
        case Activation.LEAKY_RELU:
            body.set(f"np.maximum(x, x * {layer.negative_slope!r})")
        case Activation.SOFTMAX:
            body.set("np.exp(x - x.max(-1, keepdims=True))")
            body.set("x / x.sum(-1, keepdims=True)")
        case Activation.GELU | Activation.SILU | Activation.ELU | Activation.SOFTPLUS:
            raise NotExportable(f"the activation {layer.activation}")
        case _:
            assert_never(layer.activation)
