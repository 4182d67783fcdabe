"""Generates a short NumPy program for the layers of a model, for the model card."""

from __future__ import annotations

import math
from typing import Final, assert_never

from service.models.exports.table_code import TABLE_CODE, TABLE_IMPORTS
from service.models.exports.trained_network import (
    GELU_CUBIC,
    GELU_SCALE,
    TrainedLayer,
    TrainedModel,
    zeros_around,
)
from service.models.networks import Activated
from service.spec import schema
from service.spec.schema import Activation

_CONV: Final = """\
def conv(x, n, stride, rows, columns):  # pad with zeros, then multiply patches by weights
    k, x = w[f"{n}.weight"], np.pad(x, ((0, 0), rows, columns, (0, 0)))
    patches = np.lib.stride_tricks.sliding_window_view(x, k.shape[:2], (1, 2))[:, ::stride, ::stride]
    return np.einsum("nrcxij,ijxf->nrcf", patches, k, optimize=True) + w[f"{n}.bias"]
"""
_CONV_TRANSPOSE: Final = """\
def conv_transpose(x, n, stride, rows, columns):  # each pixel as a patch, added up; then these rows and columns
    k, (count, height, width, _) = w[f"{n}.weight"], x.shape
    size, patches = k.shape[0], np.einsum("nrcx,ijxf->ijnrcf", x, k, optimize=True)
    y = np.zeros((count, height * stride + size, width * stride + size, k.shape[3]), x.dtype)
    for i, j in np.ndindex(size, size):
        y[:, i : i + height * stride : stride, j : j + width * stride : stride] += patches[i, j]
    return y[:, slice(*rows), slice(*columns)] + w[f"{n}.bias"]
"""
_NORM: Final = """\
def norm(x, n, epsilon):
    factor = w[f"{n}.scale"] / np.sqrt(w[f"{n}.running_variance"] + epsilon)
    return (x - w[f"{n}.running_mean"]) * factor + w[f"{n}.shift"]
"""
_LAYER_NORM: Final = """\
def layer_norm(x, n, epsilon):
    axes = tuple(range(1, x.ndim))
    x = x - x.mean(axes, keepdims=True)
    return x / np.sqrt((x * x).mean(axes, keepdims=True) + epsilon) * w[f"{n}.scale"] + w[f"{n}.shift"]
"""
_WRAPPERS: Final = {
    Activation.SIGMOID: ("1 / (1 + np.exp(-(", ")))"),
    Activation.TANH: ("np.tanh(", ")"),
    Activation.RELU: ("np.maximum(", ", 0)"),
    Activation.SOFTPLUS: ("np.logaddexp(", ", 0)"),
}
"""Activations as code before and after an expression."""
_ASSIGNMENTS: Final = {
    Activation.LEAKY_RELU: ("np.maximum(x, x * {slope!r})",),
    Activation.SOFTMAX: ("np.exp(x - x.max(-1, keepdims=True))", "x / x.sum(-1, keepdims=True)"),
    Activation.GELU: (f"0.5 * x * (1 + np.tanh({GELU_SCALE!r} * (x + {GELU_CUBIC!r} * x**3)))",),
    Activation.SILU: ("x / (1 + np.exp(-x))",),
    Activation.ELU: ("np.where(x > 0, x, np.expm1(np.minimum(x, 0)))",),
}
"""Activations as values that are assigned to ``x``, one after the other."""
_WIDTH: Final = 110
PREPROCESSING: Final = "preprocessing.json"
_BOUNDED: Final = (Activation.SIGMOID, Activation.SOFTMAX)


def numpy_code(model: TrainedModel, weights: str) -> str:
    """The text of a program that defines ``predict(images)``, for a generator ``generate(latent)``, or for a
    conditional one ``generate(latent, classes)``; for a network trained on image files also
    ``prepare(path)``.

    Args:
        weights: the name of the safetensors file.
    """
    kinds = {type(trained.layer) for trained in model.all_layers}
    lines = ["import json", *TABLE_IMPORTS.splitlines(), "from pathlib import Path", ""] if model.is_table else []
    lines += ["import numpy as np", *(["from PIL import Image, ImageOps"] if model.photos else [])]
    lines += ["from safetensors.numpy import load_file", "", f'w = load_file("{weights}")']
    lines += (
        [
            f'table = json.loads(Path("{PREPROCESSING}").read_text("utf-8"))',
            'COLUMNS, UNUSED_COLUMNS = table["columns"], table["unused_columns"]',
            *TABLE_CODE.splitlines(),
        ]
        if model.is_table
        else []
    )
    lines += _block(model.photos.code(imports=False)) if model.photos is not None else []
    lines += _block(_CONV) if schema.Conv2D in kinds else []
    lines += _block(_CONV_TRANSPOSE) if schema.Conv2DTranspose in kinds else []
    lines += _block(_NORM) if schema.BatchNorm in kinds else []
    lines += _block(_LAYER_NORM) if schema.LayerNorm in kinds else []
    body = _Body()
    low, high = model.scale
    shape, sides = (", ".join(map(str, size)) for size in (model.image_shape, model.input_size))
    dtype = f"np.{model.spec.dtype.value}"
    if model.is_table:
        result = f"column {model.target['name']!r}" if model.target is not None else "probabilities"
        lines += ["", "", f"def predict(rows):  # to {result}"]
        body.set(f"np.array([_features(row) for row in rows], {dtype}).reshape(-1, {sides})")
    elif model.classes:
        inputs = f"(N, {model.latent_dim}) and (N,) numbers of classes"
        lines += ["", "", f"def generate(latent, classes):  # {inputs}, to (N, {shape}), levels 0 to 255"]
        body.set(f"np.hstack([latent, np.eye({model.classes})[classes]]).astype({dtype})")
    elif model.generates:
        lines += ["", "", f"def generate(latent):  # (N, {sides}) to (N, {shape}), levels 0 to 255"]
        body.set(f"latent.astype({dtype})")
    else:
        lines += ["", "", f"def predict(images):  # (N, {shape}), levels 0 to 255, to probabilities"]
        body.set(
            f"images.reshape(-1, {sides}) * {dtype}({high - low!r} / 255)" + (f" + {dtype}({low!r})" if low else "")
        )
    for trained in model.layers:
        _add_layer(body, trained)
    if model.target is not None:
        body.finish(f"return x[:, 0].astype(float) * {model.target['scale']!r} + {model.target['mean']!r}")
    elif model.generates:
        body.finish(f"return np.clip((x - {low!r}) * {255 / (high - low)!r}, 0, 255).reshape(-1, {shape})")
    else:
        if len(model.layers[-1].after) == 3:
            body.chain(f".reshape(-1, {math.prod(model.layers[-1].after)})")
        is_bounded = getattr(model.layers[-1].layer, "activation", None) in _BOUNDED
        body.finish("return x" if is_bounded else "return np.clip(x, 0, 1)")
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

    def wrap(self, prefix: str, suffix: str) -> None:
        """Set ``x`` to ``prefix x suffix``."""
        if not self._value or len(self._value) + len(prefix + suffix) > _WIDTH:
            self.set("x")
        self._value = f"{prefix}{self._value}{suffix}"

    def chain(self, call: str) -> None:
        """Set ``x`` to ``x.call``."""
        is_simple = self._value.endswith(")") and not set(self._value) & set("*/@")
        if not is_simple or len(self._value) + len(call) > _WIDTH:
            self.set("x")
        self._value += call

    def save(self, name: str) -> None:
        """Set ``name`` to ``x``."""
        self._flush()
        self.lines.append(f"{name} = x")

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


def _add_layer(body: _Body, trained: TrainedLayer) -> None:
    layer, name, before = trained.layer, trained.name, trained.before
    match layer:
        case schema.Dense():
            body.set(f'x @ w["{name}.weight"] + w["{name}.bias"]')
        case schema.Conv2D():
            top, left, bottom, right = zeros_around(layer, before, trained.after)
            body.set(f'conv(x, "{name}", {layer.stride}, ({top}, {bottom}), ({left}, {right}))')
        case schema.Conv2DTranspose():
            top, left, _, _ = zeros_around(layer, before, trained.after)
            rows, columns, _ = trained.after
            crop = f"({top}, {top + rows}), ({left}, {left + columns})"
            body.set(f'conv_transpose(x, "{name}", {layer.stride}, {crop})')
        case schema.BatchNorm() | schema.LayerNorm():
            function = "norm" if isinstance(layer, schema.BatchNorm) else "layer_norm"
            body.wrap(f"{function}(", f', "{name}", {layer.epsilon!r})')
        case schema.Residual():
            saved_name = f"before_{trained.path[0]}"
            body.save(saved_name)
            for inner in trained.inner:
                _add_layer(body, inner)
            body.set(f"{saved_name} + x")
        case schema.MaxPool2D() | schema.AvgPool2D():
            rows, columns, channels = trained.after
            reduced = "max" if isinstance(layer, schema.MaxPool2D) else "mean"
            body.chain(f".reshape(-1, {rows}, {layer.size}, {columns}, {layer.size}, {channels}).{reduced}((2, 4))")
        case schema.GlobalAvgPool2D():
            body.chain(".mean((1, 2))")
        case schema.Upsample2D():
            body.chain(f".repeat({layer.size}, 1).repeat({layer.size}, 2)")
        case schema.Flatten():
            if len(before) == 3:
                body.chain(f".reshape(-1, {math.prod(before)})")
        case schema.Reshape():
            body.chain(f".reshape(-1, {', '.join(map(str, layer.shape))})")
        case schema.Dropout():
            pass
        case _:
            assert_never(layer)
    if isinstance(layer, Activated):
        _activate(body, layer)


def _activate(body: _Body, layer: Activated) -> None:
    if layer.activation in _WRAPPERS:
        body.wrap(*_WRAPPERS[layer.activation])
    for value in _ASSIGNMENTS.get(layer.activation, ()):
        body.set(value.format(slope=layer.negative_slope))
