"""PyTorch: ``model.py``, a module that lists the layers and needs only torch, and its weights as safetensors.

Images inside the module are (N, channels, rows, columns), as in torch; see ``onnx.graph``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, assert_never

import numpy as np
import safetensors.numpy

from service.models import kinds
from service.models.exports.creation import JobFacts, Pictures
from service.models.exports.table_code import TABLE_CODE
from service.models.exports.torch_templates import (
    CLASSIFIER,
    CONDITIONAL_GENERATOR,
    GENERATOR,
    PHOTO_EXAMPLE,
    READER,
    REGRESSOR,
    TABLE,
)
from service.models.exports.trained_network import (
    Array,
    Size,
    TrainedLayer,
    TrainedModel,
    trailing_rows,
    zeros_around,
)
from service.models.networks import Activated
from service.spec import schema
from service.spec.schema import Activation, Padding

WEIGHTS: Final = "weights.safetensors"
_SHOWN_COLUMNS: Final = 3
_ACTIVATIONS: Final = {
    Activation.LINEAR: "{x}",
    Activation.SIGMOID: "torch.sigmoid({x})",
    Activation.TANH: "torch.tanh({x})",
    Activation.RELU: "F.relu({x})",
    Activation.LEAKY_RELU: "F.leaky_relu({x}, {slope!r})",
    Activation.SOFTMAX: "torch.softmax({x}, 1)",
    Activation.GELU: 'F.gelu({x}, approximate="tanh")',
    Activation.SILU: "F.silu({x})",
    Activation.ELU: "F.elu({x})",
    Activation.SOFTPLUS: "F.softplus({x})",
}
_NAMES: Final = {
    "weight": "weight",
    "bias": "bias",
    "scale": "weight",
    "shift": "bias",
    "running_mean": "running_mean",
    "running_variance": "running_var",
}
"""Torch's names of the tensors."""
_AXES: Final = {schema.Dense: (1, 0), schema.Conv2D: (3, 2, 0, 1), schema.Conv2DTranspose: (2, 3, 0, 1)}
"""The order of the axes of a weight in torch."""


def to_torch(model: TrainedModel, facts: JobFacts, pictures: Pictures | None = None) -> dict[str, bytes]:
    """The files ``model.py`` and ``weights.safetensors``: name to content."""
    return {
        "model.py": module_code(model, facts).encode(),
        WEIGHTS: safetensors.numpy.save(weights(model), {"format": "pt"}),
    }


def weights(model: TrainedModel) -> dict[str, Array]:
    """The weights with torch's names and memory layout."""
    arrays: dict[str, Array] = {}
    for trained in model.all_layers:
        tensors = {_NAMES[name]: tensor for name, tensor in trained.tensors.items()}
        if (axes := _AXES.get(type(trained.layer))) is not None:
            tensors["weight"] = tensors["weight"].transpose(axes)
        if isinstance(trained.layer, schema.BatchNorm):
            tensors["num_batches_tracked"] = np.zeros((), np.int64)
        arrays |= {f"{_attribute_name(trained)}.{name}": tensor for name, tensor in tensors.items()}
    return {name: np.asarray(array, order="C") for name, array in arrays.items()}


def module_code(model: TrainedModel, facts: JobFacts) -> str:
    """The text of ``model.py``. Names given by users appear in it only as string literals."""
    modules: list[str] = []
    steps: list[str] = []
    for trained in model.layers:
        steps += _forward(trained, modules)
    template = (TABLE if model.target is None else REGRESSOR) if model.is_table else CLASSIFIER
    target = model.target or {"name": "", "mean": 0.0, "scale": 1.0}
    if model.generates:
        template = CONDITIONAL_GENERATOR if model.classes else GENERATOR
    low, high = model.scale
    if len(model.input_size) == 3:
        steps.insert(0, _to_torch("x"))
    return template.substitute(
        name=repr(facts.job.name or facts.title),
        job=repr(facts.job.id),
        epoch=facts.checkpoint_epoch,
        spec_hash=repr(facts.job.spec_hash),
        classes=_literal_list(model.class_names),
        columns=_literal_list([dict(column) for column in model.columns]),
        unused=_literal_list(model.unused_columns),
        table_code=TABLE_CODE,
        target=repr(target["name"]),
        mean=repr(target["mean"]),
        deviation=repr(target["scale"]),
        dtype=model.spec.dtype.value,
        shape=repr(model.image_shape),
        example=_in_docstring(example_row(model)) if model.is_table else ", ".join(map(str, model.image_shape)),
        input=", ".join(map(str, model.input_size)),
        dim=model.latent_dim,
        class_count=model.classes,
        latent=latent_example(model),
        count=math.prod(model.layers[-1].after),
        factor=repr((high - low) / 255),
        low=repr(float(low)),
        high=repr(float(high)),
        modules="\n        ".join(modules),
        steps="\n        ".join([*steps, *_flatten("x", model.layers[-1].after)]),
        reader=READER.strip(),
        prepare=f"\n\n{model.photos.code(imports=True)}" if model.photos is not None else "",
        photo=PHOTO_EXAMPLE if model.photos else "",
    )


def example_row(model: TrainedModel) -> str:
    """An example row with the first columns, as a Python literal."""
    row = repr(
        {
            str(column["name"]): next(iter(column["categories"]), None)
            if "categories" in column
            else float(f"{column['mean']:.4g}")
            for column in model.columns[:_SHOWN_COLUMNS]
        }
    )
    return row if len(model.columns) <= _SHOWN_COLUMNS else row.removesuffix("}") + ", ...}"


def _in_docstring(text: str) -> str:
    """The text, escaped for a docstring in triple quotes."""
    return text.replace("\\", r"\\").replace('"', r"\"")


def latent_example(model: TrainedModel) -> str:
    """An expression for sixteen latent points, drawn as in training; empty for a network that has none."""
    return kinds.of(model.spec.kind).torch_latent(model.spec)


def _literal_list(values: Sequence[Any]) -> str:
    return "".join(f"\n    {value!r}," for value in values) + "\n" if values else ""


def _to_torch(x: str) -> str:
    return f"x = {x}.permute(0, 3, 1, 2)"


def _flatten(x: str, size: Size) -> list[str]:
    return [f"x = {x}.permute(0, 2, 3, 1).flatten(1)"] if len(size) == 3 else []


def _attribute_name(trained: TrainedLayer) -> str:
    return "layer" + "_".join(map(str, trained.path))


def _forward(trained: TrainedLayer, modules: list[str]) -> list[str]:
    """The lines of ``forward`` for a layer. Its modules are appended to ``modules``."""
    if isinstance(trained.layer, schema.Residual):
        saved_name = f"before{'_'.join(map(str, trained.path))}"
        inner = [line for layer in trained.inner for line in _forward(layer, modules)]
        return [f"{saved_name} = x", *inner, f"x = {_apply_activation(trained.layer, f'{saved_name} + x')}"]
    module, lines = _layer(trained, trained.layer)
    if module is not None:
        modules.append(f"self.{_attribute_name(trained)} = {module}")
    return lines


def _layer(trained: TrainedLayer, layer: schema.InnerLayer) -> tuple[str | None, list[str]]:
    """The module of a layer, if it has one, and its lines of ``forward``."""
    call, channels, is_image = f"self.{_attribute_name(trained)}", trained.before[-1], len(trained.before) == 3
    match layer:
        case schema.Dense():
            module, result = f"nn.Linear({math.prod(trained.before)}, {layer.units})", f"{call}(x)"
        case schema.Conv2D():
            module = f"nn.Conv2d({channels}, {layer.filters}, {layer.kernel}, stride={layer.stride})"
            top, left, bottom, right = zeros_around(layer, trained.before, trained.after)
            padded = f"F.pad(x, ({left}, {right}, {top}, {bottom}))" if top or left or bottom or right else "x"
            result = f"{call}({padded})"
        case schema.Conv2DTranspose():
            sides = f"stride={layer.stride}, output_padding={trailing_rows(layer)}"
            module = f"nn.ConvTranspose2d({channels}, {layer.filters}, {layer.kernel}, {sides})"
            top, left, _, _ = zeros_around(layer, trained.before, trained.after)
            rows, columns, _ = trained.after
            crop = f"[:, :, {top}:{top + rows}, {left}:{left + columns}]" if layer.padding is Padding.SAME else ""
            result = f"{call}(x){crop}"
        case schema.LayerNorm():
            kind = f"nn.GroupNorm(1, {channels}" if is_image else f"nn.LayerNorm({channels}"
            module, result = f"{kind}, eps={layer.epsilon!r})", f"{call}(x)"
        case schema.BatchNorm():
            kind, momentum = f"BatchNorm{2 if is_image else 1}d", round(1 - layer.momentum, 12)
            module = f"nn.{kind}({channels}, eps={layer.epsilon!r}, momentum={momentum!r})"
            result = f"{call}(x)"
        case schema.MaxPool2D():
            return None, [f"x = F.max_pool2d(x, {layer.size})"]
        case schema.AvgPool2D():
            return None, [f"x = F.avg_pool2d(x, {layer.size})"]
        case schema.GlobalAvgPool2D():
            return None, ["x = x.mean((2, 3))"]
        case schema.Upsample2D():
            return None, [f'x = F.interpolate(x, scale_factor={layer.size}, mode="nearest")']
        case schema.Flatten():
            return None, _flatten("x", trained.before)
        case schema.Reshape():
            rows, columns, channels = layer.shape
            shaped = f"x.reshape(-1, {rows}, {columns}, {channels})"
            return None, [*_flatten("x", trained.before), _to_torch(shaped)]
        case schema.Dropout():
            return f"nn.Dropout({layer.rate!r})", [f"x = {call}(x)"]
        case _:
            assert_never(layer)
    return module, [f"x = {_apply_activation(layer, result)}"]


def _apply_activation(layer: Activated, x: str) -> str:
    return _ACTIVATIONS[layer.activation].format(x=x, slope=layer.negative_slope)
