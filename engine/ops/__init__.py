"""Primitives: functions on arrays next to their VJPs, one module per topic. Each lists its public ones in ``__all__``.

On a tape, a NumPy function that :mod:`engine.ops.numpy_api.numpy_functions` does not list raises an error; it is never
ignored.
"""

from engine.ops.activations import *
from engine.ops.elementwise import *
from engine.ops.images.convolution import *
from engine.ops.images.pooling import *
from engine.ops.linalg import *
from engine.ops.losses import *
from engine.ops.normalization import *
from engine.ops.numpy_api import numpy_functions
from engine.ops.reductions import *
from engine.ops.shape import *

numpy_functions.register()
