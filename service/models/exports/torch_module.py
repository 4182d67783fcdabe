"""PyTorch: ``model.py``, a module written out layer by layer that needs only torch, and its weights as safetensors.

Inside the module images are (N, channels, rows, columns), as torch has them; see ``onnx_graph``.
"""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from typing import Final, assert_never

import numpy as np
import safetensors.numpy

from service.models.exports.orders import JobFacts, NotExportable
from service.models.exports.trained import Array, PlacedLayer, Size, TrainedModel, zeros_around
from service.spec import schema
from service.spec.schema import Activation

WEIGHTS: Final = "weights.safetensors"
_BATCH_NORM: Final = {
    "scale": "weight",
    "shift": "bias",
    "running_mean": "running_mean",
    "running_variance": "running_var",
}


def to_torch(model: TrainedModel, facts: JobFacts) -> dict[str, bytes]:
    """The files: ``model.py`` and ``weights.safetensors``."""
    return {
        "model.py": module_code(model, facts).encode(),
        WEIGHTS: safetensors.numpy.save(weights(model), {"format": "pt"}),
    }


def weights(model: TrainedModel) -> dict[str, Array]:
    """The weights by the names and in the layout of torch."""
    found: dict[str, Array] = {}
    for placed in model.layers:
        prefix, tensors = f"layer{placed.number}.", placed.tensors
        match placed.layer:
            case schema.Dense():
                found |= {prefix + "weight": tensors["weight"].T, prefix + "bias": tensors["bias"]}
            case schema.Conv2D():
                found |= {prefix + "weight": tensors["weight"].transpose(3, 2, 0, 1), prefix + "bias": tensors["bias"]}
            case schema.BatchNorm():
                found |= {prefix + theirs: tensors[ours] for ours, theirs in _BATCH_NORM.items()}
                found[prefix + "num_batches_tracked"] = np.zeros((), np.int64)
            case _:
                pass
    return {name: np.asarray(array, order="C") for name, array in found.items()}


def module_code(model: TrainedModel, facts: JobFacts) -> str:
    """The text of ``model.py``. What people wrote (names) is in it as string literals only."""
    modules, steps = [], []
    for placed in model.layers:
        module, forward = _layer(placed)
        if module is not None:
            modules.append(f"self.layer{placed.number} = {module}")
        steps += forward
    template = _GENERATOR if model.generates else _CLASSIFIER
    low, high = model.scale
    if len(model.input_size) == 3:
        steps.insert(0, _to_torch("x"))
    return template.substitute(
        name=repr(facts.name or facts.title),
        job=repr(facts.id),
        epoch=facts.checkpoint_epoch,
        spec_hash=repr(facts.spec_hash),
        classes=_literal_list(model.class_names),
        dtype=model.spec.dtype.value,
        shape=repr(model.image_shape),
        example=", ".join(map(str, model.image_shape)),
        input=", ".join(map(str, model.input_size)),
        dim=model.input_size[0],
        latent=latent_example(model),
        count=math.prod(model.layers[-1].after),
        factor=repr((high - low) / 255),
        low=repr(float(low)),
        high=repr(float(high)),
        modules="\n        ".join(modules),
        steps="\n        ".join([*steps, *_flat("x", model.layers[-1].after)]),
        reader=_READER.strip(),
    )


def latent_example(model: TrainedModel) -> str:
    """Sixteen points of the latent space, drawn as in the training; of a classifier nothing."""
    spec, dim = model.spec, model.input_size[0]
    if not isinstance(spec, schema.GanSpec):
        return ""
    return (
        f"torch.randn(16, {dim})"
        if spec.latent.distribution is schema.Distribution.NORMAL
        else (f"torch.rand(16, {dim}) * 2 - 1")
    )


def _literal_list(names: Sequence[str]) -> str:
    return "".join(f"\n    {name!r}," for name in names) + "\n" if names else ""


def _to_torch(x: str) -> str:
    return f"x = {x}.permute(0, 3, 1, 2)"


def _flat(x: str, size: Size) -> list[str]:
    return [f"x = {x}.permute(0, 2, 3, 1).flatten(1)"] if len(size) == 3 else []


def _layer(placed: PlacedLayer) -> tuple[str | None, list[str]]:
    """The module of a layer, where it has one, and its lines of ``forward``."""
    layer, call = placed.layer, f"self.layer{placed.number}"
    match layer:
        case schema.Dense():
            module = f"nn.Linear({math.prod(placed.before)}, {layer.units})"
            return module, [f"x = {_activated(layer, f'{call}(x)')}"]
        case schema.Conv2D():
            module = f"nn.Conv2d({placed.before[2]}, {layer.filters}, {layer.kernel}, stride={layer.stride})"
            top, left, bottom, right = zeros_around(layer, placed.before, placed.after)
            around = f"F.pad(x, ({left}, {right}, {top}, {bottom}))" if top or left or bottom or right else "x"
            return module, [f"x = {_activated(layer, f'{call}({around})')}"]
        case schema.BatchNorm():
            images = len(placed.before) == 3
            kind = "BatchNorm2d" if images else "BatchNorm1d"
            momentum = round(1 - layer.momentum, 12)
            module = f"nn.{kind}({placed.before[-1]}, eps={layer.epsilon!r}, momentum={momentum!r})"
            return module, [f"x = {_activated(layer, f'{call}(x)')}"]
        case schema.MaxPool2D():
            return None, [f"x = F.max_pool2d(x, {layer.size})"]
        case schema.Upsample2D():
            return None, [f'x = F.interpolate(x, scale_factor={layer.size}, mode="nearest")']
        case schema.Flatten():
            return None, _flat("x", placed.before)
        case schema.Reshape():
            rows, columns, channels = layer.shape
            shaped = f"x.reshape(-1, {rows}, {columns}, {channels})"
            return None, [*_flat("x", placed.before), _to_torch(shaped)]
        case schema.Dropout():
            return f"nn.Dropout({layer.rate!r})", [f"x = {call}(x)"]
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


def _activated(layer: schema.Dense | schema.Conv2D | schema.BatchNorm, x: str) -> str:
    match layer.activation:
        case Activation.LINEAR:
            return x
        case Activation.SIGMOID:
            return f"torch.sigmoid({x})"
        case Activation.TANH:
            return f"torch.tanh({x})"
        case Activation.RELU:
            return f"F.relu({x})"
        case Activation.LEAKY_RELU:
            return f"F.leaky_relu({x}, {layer.negative_slope!r})"
        case Activation.SOFTMAX:
            return f"torch.softmax({x}, 1)"
        case Activation.GELU | Activation.SILU | Activation.ELU | Activation.SOFTPLUS:
            raise NotExportable(f"the activation {layer.activation}")
        case _:
            assert_never(layer.activation)


_READER: Final = '''
def load(path=None):
    """The trained model, ready for inference.

    Args:
        path: the safetensors file; default: weights.safetensors beside this file.
    """
    model = Model()
    model.load_state_dict(read_safetensors(path or Path(__file__).with_name("weights.safetensors")), strict=True)
    return model.eval()


def read_safetensors(path):
    """The tensors of a safetensors file: 8 bytes for the length of the header, the header as JSON, the numbers."""
    dtypes = {"F16": torch.float16, "F32": torch.float32, "F64": torch.float64, "I64": torch.int64}
    data = Path(path).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header, numbers = json.loads(data[8 : 8 + length]), bytearray(data[8 + length :])
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            flat = torch.frombuffer(numbers[start:end], dtype=dtypes[entry["dtype"]])
            tensors[name] = flat.reshape(entry["shape"])
    return tensors
'''

_CLASSIFIER: Final = string.Template('''\
"""An image classifier that was trained by Tapeline. This file and weights.safetensors are all that it needs but torch.

    import torch
    from model import CLASSES, load

    model = load()
    images = torch.zeros(1, $example, dtype=torch.uint8)  # levels 0 to 255, 0 is black
    probabilities = model.predict(images)  # (N, $count)
    names = [CLASSES[number] for number in probabilities.argmax(1)]
"""

import json
import struct
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

NAME = $name
JOB, EPOCH = $job, $epoch
SPEC_HASH = $spec_hash
CLASSES = [$classes]


class Model(nn.Module):
    """Images (N, $example) of levels from 0 to 255 to outputs (N, classes)."""

    def __init__(self):
        super().__init__()
        $modules
        self.to(torch.$dtype)

    def forward(self, images):
        x = images.to(torch.$dtype) * $factor + $low
        x = x.reshape(-1, $input)
        $steps
        return x

    @torch.no_grad()
    def predict(self, images):
        """Probabilities (N, classes) in [0, 1]."""
        return self.eval()(images).clamp(0, 1)


$reader
''')

_GENERATOR: Final = string.Template('''\
"""An image generator that was trained by Tapeline. This file and weights.safetensors are all that it needs but torch.

    import torch
    from model import load

    model = load()
    levels = model.generate($latent)  # (16, $example), 0 is black, 255 is white
    images = levels.round().to(torch.uint8)
"""

import json
import struct
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

NAME = $name
JOB, EPOCH = $job, $epoch
SPEC_HASH = $spec_hash


class Model(nn.Module):
    """Points (N, $dim) of the latent space to images (N, pixels) in the range [$low, $high] of the training."""

    def __init__(self):
        super().__init__()
        $modules
        self.to(torch.$dtype)

    def forward(self, latent):
        x = latent.to(torch.$dtype)
        $steps
        return x

    @torch.no_grad()
    def generate(self, latent):
        """Images (N, $example) of levels from 0 to 255."""
        levels = (self.eval()(latent) - $low) * (255 / ($high - $low))
        return levels.clamp(0, 255).reshape(-1, $example)


$reader
''')
