"""Test cases for every public primitive, with arguments of random shapes, axes and settings."""

import functools
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from engine import ops
from tests.engine.arrays import (
    Case,
    axes_of,
    binary,
    distinct,
    nonempty_shapes,
    pair,
    positive,
    shapes,
    shapes_with_axes,
    unary,
)

small_sizes = st.integers(1, 4)


@st.composite
def unary_positive(draw: Any, op: Any) -> Case:
    return op, [positive(draw, draw(shapes))]


@st.composite
def divide(draw: Any) -> Case:
    a, b = pair(draw)
    return ops.divide, [a, np.abs(b) + 0.5]


@st.composite
def power(draw: Any) -> Case:
    a, b = pair(draw)
    exponent = draw(st.sampled_from([None, 0, 1, 2, 3, -1, 0.5, -1.5]))
    if exponent is None:
        return ops.power, [np.abs(a) + 0.3, b]
    return lambda x: ops.power(x, exponent), [np.abs(a) + 0.3]


@st.composite
def where(draw: Any) -> Case:
    a, b = pair(draw)
    condition = np.random.default_rng(0).random(np.broadcast_shapes(a.shape, b.shape)) > 0.5
    return lambda a, b: ops.where(condition, a, b), [a, b]


@st.composite
def clip(draw: Any) -> Case:
    x = distinct(draw, draw(shapes))
    match draw(st.integers(0, 3)):
        case 0:
            return lambda x: ops.clip(x, -0.1, None), [x]
        case 1:
            return lambda x: ops.clip(x, None, 0.1), [x]
        case 2:
            return ops.clip, [x, np.array(-0.1), np.array(0.1)]
        case _:
            return ops.clip, [x, distinct(draw, x.shape, -0.4), distinct(draw, x.shape, 0.39) + 0.3]


@st.composite
def reduction(draw: Any, op: Any, allow_empty: bool = False, min_side: int = 0, **options: Any) -> Case:
    shape = draw(hnp.array_shapes(max_dims=3, min_side=min_side, max_side=3))
    axes, keepdims = draw(axes_of(shape)), draw(st.booleans())
    assume(allow_empty or np.take(shape, range(len(shape)) if axes is None else axes).all())
    return lambda x: op(x, axis=axes, keepdims=keepdims, **options), [distinct(draw, shape)]


@st.composite
def spread(draw: Any, op: Any) -> Case:
    return draw(reduction(op, min_side=2, ddof=draw(st.sampled_from([0, 1, 0.5]))))


@st.composite
def along_axis(draw: Any, op: Any) -> Case:
    shape = draw(shapes_with_axes)
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    assume(shape[axis])
    return lambda x: op(x, axis=axis), [distinct(draw, shape)]


@st.composite
def matmul(draw: Any) -> Case:
    a, b = draw(
        hnp.mutually_broadcastable_shapes(signature="(m?,n),(n,p?)->(m?,p?)", max_dims=2, min_side=0, max_side=3)
    ).input_shapes
    return ops.matmul, [distinct(draw, a), distinct(draw, b)]


@st.composite
def affine(draw: Any) -> Case:
    leading = draw(hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3))
    inputs, units = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    return ops.affine, [distinct(draw, (*leading, inputs)), distinct(draw, (inputs, units)), distinct(draw, (units,))]


@st.composite
def conv2d(draw: Any) -> Case:
    kernel, channels, filters = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    images = (draw(st.integers(0, 2)), draw(st.integers(kernel, 5)), draw(st.integers(kernel, 5)), channels)
    options = {"stride": draw(st.integers(1, 3)), "padding": draw(st.sampled_from(["same", "valid"]))}
    weight = distinct(draw, (kernel, kernel, channels, filters))
    return lambda x, w, b: ops.conv2d(x, w, b, **options), [distinct(draw, images), weight, distinct(draw, (filters,))]


@st.composite
def conv2d_transpose(draw: Any) -> Case:
    kernel, channels, filters = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    stride, padding = draw(st.integers(1, 3)), draw(st.sampled_from(["same", "valid"]))
    min_side = -(-kernel // stride)
    images = (draw(st.integers(0, 2)), draw(st.integers(min_side, 3)), draw(st.integers(min_side, 3)), channels)
    weight = distinct(draw, (kernel, kernel, channels, filters))
    f = functools.partial(ops.conv2d_transpose, stride=stride, padding=padding)
    return f, [distinct(draw, images), weight, distinct(draw, (filters,))]


@st.composite
def flatten(draw: Any) -> Case:
    return ops.flatten, [distinct(draw, draw(hnp.array_shapes(min_dims=2, max_dims=4, min_side=0, max_side=3)))]


@st.composite
def resampled(draw: Any, op: Any, shrinks: bool) -> Case:
    size, pixels = draw(st.integers(1, 3)), draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=2))
    height, width = (side * size if shrinks else side for side in pixels)
    images = (draw(st.integers(0, 2)), height, width, draw(st.integers(1, 2)))
    return lambda x: op(x, size=size), [distinct(draw, images)]


@st.composite
def batch_norm(draw: Any) -> Case:
    x = distinct(draw, draw(hnp.array_shapes(min_dims=2, max_dims=4, min_side=1, max_side=3)))
    vectors = [distinct(draw, x.shape[-1:]) for _ in range(2)]
    return lambda x, scale, shift: ops.batch_norm(x, scale, shift, epsilon=0.01)[0], [x, *vectors]


@st.composite
def layer_norm(draw: Any) -> Case:
    x = distinct(draw, draw(hnp.array_shapes(min_dims=2, max_dims=4, min_side=1, max_side=3)))
    vectors = [distinct(draw, x.shape[-1:]) for _ in range(2)]
    return lambda x, scale, shift: ops.layer_norm(x, scale, shift, epsilon=0.01), [x, *vectors]


@st.composite
def getitem(draw: Any) -> Case:
    kind = draw(st.sampled_from(["basic", "repeats", "mask", "mixed"]))
    x = distinct(draw, draw(shapes_with_axes if kind in ("basic", "mask") else nonempty_shapes))
    if kind == "basic":
        index: Any = draw(hnp.basic_indices(x.shape, allow_newaxis=True))
    elif kind == "repeats":
        index = draw(st.lists(st.integers(-len(x), len(x) - 1), min_size=1, max_size=5))
    elif kind == "mask":
        index = draw(hnp.arrays(np.bool_, x.shape))
    else:
        index = (np.array([[0, -1], [0, 0]]), *(slice(None, None, -1),) * (x.ndim - 1))
    return lambda x: ops.getitem(x, index), [x]


@st.composite
def reshape(draw: Any) -> Case:
    x = distinct(draw, draw(shapes))
    shape = draw(st.permutations(x.shape)) if draw(st.booleans()) else (x.size,)
    return lambda x: ops.reshape(x, tuple(shape)), [x]


@st.composite
def transpose(draw: Any) -> Case:
    x = distinct(draw, draw(shapes))
    axes = draw(st.none() | st.permutations(range(x.ndim)))
    return lambda x: ops.transpose(x, axes=axes), [x]


@st.composite
def broadcast_to(draw: Any) -> Case:
    shape = draw(shapes)
    target = draw(st.sampled_from([shape, (2, *shape), (1, 3, *shape)]))
    return lambda x: ops.broadcast_to(x, target), [distinct(draw, shape)]


@st.composite
def concatenate(draw: Any) -> Case:
    shape = draw(shapes_with_axes)
    axis = draw(st.none() | st.integers(-len(shape), len(shape) - 1))
    sizes = draw(st.lists(st.integers(0, 3), min_size=1, max_size=3))
    parts = [list(shape) for _ in sizes]
    for part, size in zip(parts, sizes, strict=True):
        part[axis or 0] = size
    return lambda *arrays: ops.concatenate(arrays, axis=axis), [distinct(draw, tuple(part)) for part in parts]


@st.composite
def stack(draw: Any) -> Case:
    shape = draw(shapes)
    axis = draw(st.integers(-len(shape) - 1, len(shape)))
    return lambda *arrays: ops.stack(arrays, axis=axis), [distinct(draw, shape) for _ in range(draw(small_sizes))]


@st.composite
def axes_moved(draw: Any, op: Any) -> Case:
    shape = draw(shapes_with_axes)
    first, second = (draw(st.integers(-len(shape), len(shape) - 1)) for _ in range(2))
    return lambda x: op(x, first, second), [distinct(draw, shape)]


@st.composite
def expand_dims(draw: Any) -> Case:
    shape = draw(shapes)
    axis = draw(st.integers(-len(shape) - 1, len(shape)) | st.just((0, len(shape) + 1)))
    return lambda x: ops.expand_dims(x, axis), [distinct(draw, shape)]


@st.composite
def squeeze(draw: Any) -> Case:
    x = distinct(draw, (1, draw(st.integers(0, 4)), 1))
    axis = draw(st.sampled_from([None, 0, -1, (0, 2)]))
    return lambda x: ops.squeeze(x, axis), [x]


@st.composite
def squared_error(draw: Any) -> Case:
    shape = draw(shapes)
    target = distinct(draw, shape, 0.5)
    return lambda x: ops.squared_error(x, target), [distinct(draw, shape)]


@st.composite
def sigmoid_cross_entropy(draw: Any) -> Case:
    x = 30 * distinct(draw, draw(shapes))
    target = draw(st.sampled_from([0.0, 0.9, 1.0])) if draw(st.booleans()) else np.full(x.shape, 0.25)
    return lambda x: ops.sigmoid_cross_entropy(x, target), [x]


@st.composite
def softmax_cross_entropy(draw: Any) -> Case:
    rows, classes = draw(small_sizes), draw(small_sizes)
    labels = draw(hnp.arrays(np.int64, (rows,), elements=st.integers(0, classes - 1)))
    smoothing = draw(st.sampled_from([0.0, 0.1]))
    weights = draw(st.sampled_from([None, np.linspace(0.5, 2, classes)]))

    def loss(x: Any) -> Any:
        return ops.softmax_cross_entropy(x, labels, label_smoothing=smoothing, class_weights=weights)

    return loss, [distinct(draw, (rows, classes))]


PUBLIC = sorted(name for name, value in vars(ops).items() if callable(value) and not name.startswith("_"))
CASES: dict[str, st.SearchStrategy[Case]] = {
    **{
        name: unary(getattr(ops, name))
        for name in ("absolute", "cos", "exp", "expm1", "leaky_relu", "negative", "ravel", "relu", "sigmoid", "sin")
    },
    **{name: unary(getattr(ops, name)) for name in ("elu", "gelu", "silu", "softplus")},
    **{name: unary_positive(getattr(ops, name)) for name in ("log", "log1p", "sqrt")},
    **{name: binary(getattr(ops, name)) for name in ("add", "maximum", "minimum", "multiply", "subtract")},
    **{name: reduction(getattr(ops, name)) for name in ("max", "mean", "min")},
    **{name: along_axis(getattr(ops, name)) for name in ("log_softmax", "softmax")},
    **{name: axes_moved(getattr(ops, name)) for name in ("moveaxis", "swapaxes")},
    "affine": affine(),
    "batch_norm": batch_norm(),
    "broadcast_to": broadcast_to(),
    "cast": unary(lambda x: ops.cast(x, dtype=np.float64)),
    "clip": clip(),
    "concatenate": concatenate(),
    "conv2d": conv2d(),
    "conv2d_transpose": conv2d_transpose(),
    "divide": divide(),
    "expand_dims": expand_dims(),
    "flatten": flatten(),
    "getitem": getitem(),
    "layer_norm": layer_norm(),
    "matmul": matmul(),
    "max_pool2d": resampled(ops.max_pool2d, shrinks=True),
    "power": power(),
    "reshape": reshape(),
    "sigmoid_cross_entropy": sigmoid_cross_entropy(),
    "softmax_cross_entropy": softmax_cross_entropy(),
    "squared_error": squared_error(),
    "square": unary(ops.square),
    "squeeze": squeeze(),
    "sum": reduction(ops.sum, allow_empty=True),
    "stack": stack(),
    "sum_pool2d": resampled(ops.sum_pool2d, shrinks=True),
    "std": spread(ops.std),
    "tanh": unary(ops.tanh),
    "transpose": transpose(),
    "upsample2d": resampled(ops.upsample2d, shrinks=False),
    "var": spread(ops.var),
    "where": where(),
}
