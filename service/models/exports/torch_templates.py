"""Templates of ``model.py``: for image classifiers, plain and conditional generators, and classifiers and regressors of
table rows."""

from __future__ import annotations

import string
from typing import Final

from service.models.exports.table_code import TABLE_IMPORTS

READER: Final = '''
def load(path=None):
    """The trained model, ready for inference.

    Args:
        path: the safetensors file; default: weights.safetensors beside this file.
    """
    model = Model()
    model.load_state_dict(read_safetensors(path or Path(__file__).with_name("weights.safetensors")), strict=True)
    return model.eval()


def read_safetensors(path):
    """The tensors of a safetensors file: 8 bytes with the length of the header, the header as JSON, the data."""
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

_IMPORTS: Final = """\
import json
import struct
from pathlib import Path
"""

PHOTO_EXAMPLE: Final = """

Of photos: model.predict(prepare("photo.jpg")), or model.predict(np.stack([prepare(path) for path in paths]))."""


def _module(
    introduction: str, *, constants: str, inputs: str, summary: str, first: str, method: str, imports: str = _IMPORTS
) -> string.Template:
    return string.Template(f'''\
"""{introduction}
"""

{imports}
import torch
import torch.nn.functional as F
from torch import nn

NAME = $name
JOB, EPOCH = $job, $epoch
SPEC_HASH = $spec_hash
{constants}

class Model(nn.Module):
    """{summary}"""

    def __init__(self):
        super().__init__()
        $modules
        self.to(torch.$dtype)

    def forward(self, {inputs}):
        {first}
        $steps
        return x

    @torch.no_grad()
{method}


$reader
''')


CLASSIFIER: Final = _module(
    """An image classifier that was trained by Tapeline. It needs only this file, weights.safetensors and torch.

    import torch
    from model import CLASSES, load

    model = load()
    images = torch.zeros(1, $example, dtype=torch.uint8)  # levels 0 to 255, 0 is black
    probabilities = model.predict(images)  # (N, $count)
    names = [CLASSES[number] for number in probabilities.argmax(1)]$photo""",
    constants="CLASSES = [$classes]\n$prepare",
    summary="Maps images (N, $example), levels from 0 to 255, to outputs (N, classes).",
    inputs="images",
    first="x = images.to(torch.$dtype) * $factor + $low\n        x = x.reshape(-1, $input)",
    method='''\
    def predict(self, images):
        """Probabilities (N, classes) in [0, 1], of a tensor or a NumPy array."""
        return self.eval()(torch.as_tensor(images)).clamp(0, 1)''',
)


def _generator(*, takes_classes: bool) -> string.Template:
    arguments = "latent, classes" if takes_classes else "latent"
    example = "    classes = torch.arange(16) % len(CLASSES)\n" if takes_classes else ""
    imported = "CLASSES, load" if takes_classes else "load"
    call = "$latent, classes" if takes_classes else "$latent"
    inputs = "(N, $dim) and numbers of classes (N,)" if takes_classes else "(N, $dim)"
    latent = "torch.cat([latent, F.one_hot(classes, $class_count)], 1)" if takes_classes else "latent"
    return _module(
        f"""An image generator that was trained by Tapeline. It needs only this file, weights.safetensors and torch.

    import torch
    from model import {imported}

    model = load()
{example}    levels = model.generate({call})  # (16, $example), 0 is black, 255 is white
    images = levels.round().to(torch.uint8)""",
        constants="CLASSES = [$classes]\n" if takes_classes else "",
        summary=f"Maps latent points {inputs} to images (N, pixels) in the range [$low, $high], as in training.",
        inputs=arguments,
        first=f"x = {latent}.to(torch.$dtype)",
        method=f'''\
    def generate(self, {arguments}):
        """Images (N, $example), levels from 0 to 255."""
        levels = (self.eval()({arguments}) - $low) * (255 / ($high - $low))
        return levels.clamp(0, 255).reshape(-1, $example)''',
    )


GENERATOR: Final = _generator(takes_classes=False)
CONDITIONAL_GENERATOR: Final = _generator(takes_classes=True)


def _table(introduction: str, *, constants: str, outputs: str, method: str) -> string.Template:
    return _module(
        introduction,
        imports=f"""\
import json
import struct
{TABLE_IMPORTS}
from pathlib import Path
""",
        constants=constants
        + '''\
COLUMNS = [$columns]
UNUSED_COLUMNS = [$unused]
$table_code

def features(rows):
    """Rows (dicts by column name) as inputs (N, $dim) of the model: standardized numbers, one-hot categories.

    Cells are read as by the service. An unknown column, or a value that is not of its column's type, is a
    ValueError. An unknown category counts as missing, with a warning.
    """
    return torch.tensor([_features(row) for row in rows], dtype=torch.float64).reshape(-1, $dim)
''',
        summary=f"Maps the features (N, $dim) of rows to {outputs}.",
        inputs="features",
        first="x = features.to(torch.$dtype)",
        method=method,
    )


TABLE: Final = _table(
    """A classifier of table rows that was trained by Tapeline. It needs only this file, weights.safetensors and torch.

    from model import CLASSES, load

    model = load()
    rows = [$example]  # missing values: None, or left out; dates: in ISO, or days since 1970-01-01
    probabilities = model.predict(rows)  # (N, $count)
    names = [CLASSES[number] for number in probabilities.argmax(1)]""",
    constants="CLASSES = [$classes]\n",
    outputs="outputs (N, classes)",
    method='''\
    def predict(self, rows):
        """Probabilities (N, classes) in [0, 1]."""
        return self.eval()(features(rows)).clamp(0, 1)''',
)
REGRESSOR: Final = _table(
    """A regressor of table rows that was trained by Tapeline. It needs only this file, weights.safetensors and torch.

    from model import TARGET, load

    model = load()
    rows = [$example]  # missing values: None, or left out; dates: in ISO, or days since 1970-01-01
    predictions = model.predict(rows)  # (N,), in the unit of TARGET""",
    constants="TARGET = $target\nMEAN, SCALE = $mean, $deviation\n",
    outputs="the standardized target (N, 1)",
    method='''\
    def predict(self, rows):
        """The target (N,), float64."""
        return self.eval()(features(rows))[:, 0].double() * SCALE + MEAN''',
)
