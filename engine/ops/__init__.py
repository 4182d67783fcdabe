"""Primitives: functions on arrays next to their VJPs, one module per topic. This module lists the public ones.

On a tape, a NumPy function that :mod:`engine.ops.numpy_functions` does not list raises an error; it is never ignored.
"""

from engine.ops import numpy_functions
from engine.ops.activations import elu, gelu, leaky_relu, log_softmax, relu, sigmoid, silu, softmax, softplus, tanh
from engine.ops.elementwise import (
    absolute,
    add,
    cast,
    clip,
    cos,
    divide,
    exp,
    expm1,
    log,
    log1p,
    maximum,
    minimum,
    multiply,
    negative,
    power,
    sin,
    sqrt,
    square,
    subtract,
    where,
)
from engine.ops.images.convolution import conv2d, conv2d_transpose
from engine.ops.images.pooling import max_pool2d, sum_pool2d, upsample2d
from engine.ops.linalg import affine, matmul
from engine.ops.losses import sigmoid_cross_entropy, softmax_cross_entropy, squared_error
from engine.ops.normalization import batch_norm, layer_norm
from engine.ops.reductions import max, mean, min, std, sum, var  # noqa: A004 - NumPy's names
from engine.ops.shape import (
    broadcast_to,
    concatenate,
    expand_dims,
    flatten,
    getitem,
    moveaxis,
    ravel,
    reshape,
    squeeze,
    stack,
    swapaxes,
    transpose,
)

__all__ = [
    "absolute",
    "add",
    "affine",
    "batch_norm",
    "broadcast_to",
    "cast",
    "clip",
    "concatenate",
    "conv2d",
    "conv2d_transpose",
    "cos",
    "divide",
    "elu",
    "exp",
    "expand_dims",
    "expm1",
    "flatten",
    "gelu",
    "getitem",
    "layer_norm",
    "leaky_relu",
    "log",
    "log1p",
    "log_softmax",
    "matmul",
    "max",
    "max_pool2d",
    "maximum",
    "mean",
    "min",
    "minimum",
    "moveaxis",
    "multiply",
    "negative",
    "power",
    "ravel",
    "relu",
    "reshape",
    "sigmoid",
    "sigmoid_cross_entropy",
    "silu",
    "sin",
    "softmax",
    "softmax_cross_entropy",
    "softplus",
    "sqrt",
    "square",
    "squared_error",
    "squeeze",
    "stack",
    "std",
    "subtract",
    "sum",
    "sum_pool2d",
    "swapaxes",
    "tanh",
    "transpose",
    "upsample2d",
    "var",
    "where",
]

numpy_functions.register()
