"""The networks of a GAN, for a dataset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from service.kinds.gan.spec import Discriminator, GanLossName, GanSpec
from service.kinds.resizing import (
    MAX_LAYER_NUMBERS,
    MAX_LAYER_WEIGHTS,
    downsampling_convolutions,
    flatten_index,
    limit,
    narrow,
    object_of,
    of_kind,
    with_values,
)
from service.schema import costs
from service.schema.base import MAX_MEMORY_BYTES
from service.schema.layer_shapes import Network, Shape, picture_size, walk
from service.schema.layers import Activation, BatchNorm, Conv2D, Dense, Layer, Reshape, Size, Upsample2D

_PENALTY_PASSES: Final = 2.0
"""Passes that a penalty on the slope adds: forward and backward, and backward through both. Measured: two."""
MAX_BATCH_NUMBERS: Final = 2**26
"""Maximum number of values in a batch of a GAN's images: its penalty keeps several copies of them."""
LARGEST_BASE: Final = 8 * 8
"""Largest area in pixels of the image that a generator starts from, if its sides can be halved often enough."""


def networks(spec: GanSpec, shape: Shape) -> list[Network]:
    """Generator and discriminator."""
    discriminator = spec.discriminator
    # The discriminator sees each pack of generated images and each pack of real ones once.
    penalties = _PENALTY_PASSES * ((discriminator.gradient_penalty > 0) + (discriminator.r1 > 0))
    size = discriminator_input_size(spec, shape.picture, shape.classes)
    judged = walk("discriminator/layers", discriminator.layers, size)
    return [
        walk("generator/layers", spec.generator.layers, generator_input(spec, shape.classes)),
        replace(judged, passes=(2 + penalties) / discriminator.pack, probes=2),
    ]


def generator_input(spec: GanSpec, classes: int) -> Size:
    """Input size of a generator: the latent dimension, plus the one-hot class of a conditional GAN."""
    return (spec.latent.dim + (classes if spec.conditional else 0),)


def discriminator_input_size(spec: GanSpec, picture: Sequence[int], classes: int) -> Size:
    """Input size of a discriminator: the images of a pack as channels, plus the class channels of a conditional GAN."""
    discriminator = spec.discriminator
    size = picture_size(discriminator.layers, picture)
    class_channels = classes if spec.conditional else 0
    return (*size[:-1], discriminator.pack * (size[-1] + class_channels))


def discriminator_end(loss: GanLossName) -> Activation:
    """The last activation of a discriminator that the loss requires."""
    return Activation.SIGMOID if loss is GanLossName.BINARY_CROSS_ENTROPY else Activation.LINEAR


def adapt(spec: GanSpec, document: Mapping[str, Any], shape: Shape) -> GanSpec:
    """A spec adapted to images of another shape, apart from the fields of the document as sent."""
    generator, discriminator = spec.generator, spec.discriminator
    if "layers" not in object_of(document, "generator"):
        generator = with_values(generator, layers=_adapt_generator(generator.layers, shape))
    if "layers" not in object_of(document, "discriminator"):
        layers = _adapt_discriminator(discriminator.layers, shape)
        end = discriminator_end(spec.loss.name)
        discriminator = with_values(discriminator, layers=[*layers[:-1], with_values(layers[-1], activation=end)])
    if "r1" not in object_of(document, "discriminator") and _limits_slopes_otherwise(discriminator):
        discriminator = with_values(discriminator, r1=0.0)
    spec = with_values(spec, generator=generator, discriminator=discriminator)
    return spec if "batch_size" in document else _limit_batch(spec, shape)


def _limit_batch(spec: GanSpec, shape: Shape) -> GanSpec:
    """Smaller batches, where many large images would take too much memory."""
    most = MAX_BATCH_NUMBERS // max(1, shape.pixels)
    spec = with_values(spec, batch_size=max(1, min(spec.batch_size, most)))
    all_networks = networks(spec, shape)
    while spec.batch_size > 1 and costs.peak_bytes(spec, all_networks, shape) > MAX_MEMORY_BYTES:
        spec = with_values(spec, batch_size=spec.batch_size // 2)
    return spec


def _adapt_discriminator(layers: Sequence[Layer], shape: Shape) -> list[Layer]:
    if not isinstance(layers[0], Conv2D):
        return narrow(layers, shape.pixels)
    features, numbers = downsampling_convolutions(list(of_kind(Conv2D, layers)), shape)
    return [*features, *narrow(layers[flatten_index(layers) :], numbers)]


def _limits_slopes_otherwise(discriminator: Discriminator) -> bool:
    """Whether the preset's R1 penalty would contradict another limit, or cannot be computed (batch normalization)."""
    layers = [inner for layer in discriminator.layers for inner in (layer, *getattr(layer, "layers", ()))]
    return bool(list(of_kind(BatchNorm, layers))) or discriminator.gradient_penalty > 0 or discriminator.spectral_norm


def _adapt_generator(layers: Sequence[Layer], shape: Shape) -> list[Layer]:
    if isinstance(layers[-1], Dense):
        return narrow([*layers[:-1], with_values(layers[-1], units=shape.pixels)], 1)
    hidden, layout = of_kind(Dense, layers)
    norm, upsample, (conv, output) = (
        next(of_kind(BatchNorm, layers)),
        next(of_kind(Upsample2D, layers)),
        of_kind(Conv2D, layers),
    )
    rows, columns, doublings = shape.rows, shape.columns, 0
    while rows * columns > LARGEST_BASE and rows % 2 == 0 and columns % 2 == 0:
        rows, columns, doublings = rows // 2, columns // 2, doublings + 1
    numbers = rows * columns
    channels = limit(
        next(of_kind(Reshape, layers)).shape[-1],
        MAX_LAYER_WEIGHTS // hidden.units,
        MAX_LAYER_NUMBERS // 4,
        each=numbers,
    )
    layout = with_values(layout, units=numbers * channels)
    adapted: list[Layer] = [*_interleaved(narrow([hidden, layout], 1), norm)]
    adapted.append(Reshape(type="reshape", shape=[rows, columns, channels]))
    # A convolution follows each doubling. The last one outputs the image; at least one precedes it.
    for remaining in range(max(doublings, 2), 0, -1):
        if remaining <= doublings:
            adapted.append(upsample)
            rows, columns = 2 * rows, 2 * columns
        if remaining > 1:
            filters = limit(conv.filters, MAX_LAYER_NUMBERS, each=rows * columns * (4 if doublings else 1))
            adapted += [with_values(conv, filters=filters, kernel=min(conv.kernel, rows, columns)), norm]
    return [*adapted, with_values(output, filters=shape.channels, kernel=min(output.kernel, rows, columns))]


def _interleaved(layers: Sequence[Layer], norm: Layer) -> Iterator[Layer]:
    for layer in layers:
        yield from (layer, norm)
