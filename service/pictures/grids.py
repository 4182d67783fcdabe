"""Grids of images, with or without predictions. Uses only Pillow.

A training stores grids without captions, and what they say in a text chunk of the PNG file: a grid with its captions
is drawn when somebody looks at it.
"""

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from service.datasets.cache import Dataset
from service.pictures.fonts import Lettering, legible

_GUTTER = 2  # pixels, between the images and around them
_GUTTER_GREY = 52  # dark, but not as black as the background of digits, so that images have a visible frame
PAPER = (22, 24, 28)
INK = (235, 235, 235)
FAINT = (150, 155, 165)
WRONG = (230, 159, 0)  # orange of Okabe and Ito: bright on a dark background for every kind of colour vision

_BAR = (86, 180, 233)  # sky blue of Okabe and Ito
_GUTTER_GREYS = (_GUTTER_GREY,) * 3
_MARGIN, _GAP = 4, 8  # pixels: the frame of a captioned image, and the space around it
_CAPTIONED_SCALE = 3
_MIN_CONFIDENCE = 0.5
_PREVIEW_CLASSES, _PREVIEW_SIDE = 32, 64
_SMALL, _FAST = 4, 1  # levels of compression: 4 is as small as 6; 1 takes two thirds of its time, and 16% more bytes
_CLASSES_TEXT, _PREDICTIONS_TEXT = "tapeline.verdicts", "tapeline.predictions"  # keys of text chunks in PNG files

Images = NDArray[np.uint8]  # (count, rows, columns), in colour (count, rows, columns, 3)


class NotClassified(LookupError):
    """A sample grid has no predicted classes."""


@dataclass(frozen=True, slots=True)
class SampleClasses:
    """Predictions of the reference classifier: the classes and their probabilities (0 to 1)."""

    labels: Sequence[int]
    confidences: Sequence[float]


def sample_grid(
    images: Images, *, columns: int | None = None, scale: int = 2, sample_classes: SampleClasses | None = None
) -> bytes:
    """A PNG with all images, row by row, enlarged by ``scale``; nearly square by default.

    Args:
        sample_classes: stored invisibly in the file, for :func:`classified_grid`.

    Raises:
        ValueError: there is no image, the array does not have the shape of ``Images``, or the number of
            predictions differs from the number of images.
    """
    sheet, layout = _draw_plain(images, columns, scale=scale)
    if sample_classes is None:
        return _png(sheet)
    return _png(sheet, texts={_CLASSES_TEXT: json.dumps(_describe(sample_classes, len(images)) | layout)})


def image_base64(image: NDArray[np.uint8], *, scale: int = 1) -> str:
    """``image_png`` as text, for JSON."""
    return base64.b64encode(image_png(image, scale=scale)).decode()


def image_png(image: Images, *, scale: int = 1) -> bytes:
    """A PNG of one image without a frame, enlarged by ``scale``."""
    return _png(Image.fromarray(image.repeat(scale, axis=0).repeat(scale, axis=1)))


def classified_grid(png: bytes, *, classes: int, class_names: Sequence[str] | None = None) -> bytes:
    """A PNG of the images of a :func:`sample_grid`, each with its predicted class below.

    Predictions below 50% have a frame and a question mark. A histogram below the grid shows the number of
    images per class; its dashed line marks equal numbers for all classes.

    Raises:
        NotClassified: the grid was created without predicted classes.
    """
    images, sample_classes = _from_grid(png)
    class_names = legible(class_names or ())
    captions = [
        _Caption(f"{name}?" if confidence < _MIN_CONFIDENCE else name, confidence, confidence < _MIN_CONFIDENCE)
        for label, confidence in zip(sample_classes.labels, sample_classes.confidences, strict=True)
        for name in [_class_name(label, class_names)]
    ]
    grid = _draw_captioned(images, captions, has_second_line=False)
    return _png(_add_histogram(grid, sample_classes.labels, classes, class_names))


def preview_png(dataset: Dataset, *, per_class: int = 6, scale: int = 1) -> bytes:
    """A PNG of the first training images of each class, one column per class. To limit its size, only the first classes
    are shown, and only every n-th pixel of large images."""
    thinning = math.ceil(max(dataset.info.image_shape[:2]) / _PREVIEW_SIDE)
    images, labels = dataset.train.inputs[:, ::thinning, ::thinning], dataset.train.labels
    classes = min(dataset.info.classes, _PREVIEW_CLASSES)
    chosen = np.zeros((per_class, classes, *images.shape[1:]), np.uint8)
    for label in range(classes):
        examples = images[np.flatnonzero(labels == label)[:per_class]]
        chosen[: len(examples), label] = examples
    return sample_grid(chosen.reshape(-1, *images.shape[1:]), columns=classes, scale=scale)


def prediction_grid(
    images: Images,
    labels: Sequence[int] | NDArray[np.integer],
    predictions: Sequence[int] | NDArray[np.integer],
    confidences: Sequence[float] | NDArray[np.floating],
    *,
    class_names: Sequence[str] | None = None,
) -> bytes:
    """A small PNG of the images, for :func:`as_shown`: the predictions are stored invisibly in the file.

    Args:
        predictions: the predicted classes, and ``confidences`` their probabilities (0 to 1).

    Raises:
        ValueError: there is no image, or the numbers of labels, predictions, confidences and images differ.
    """
    count, *_ = check_images(images)
    if not len(labels) == len(predictions) == len(confidences) == count:
        raise ValueError(
            f"{count} images with {len(labels)} labels, {len(predictions)} predictions, {len(confidences)} confidences"
        )
    sheet, layout = _draw_plain(images, None, scale=1)
    text = {
        "labels": list(map(int, labels)),
        "predictions": list(map(int, predictions)),
        "confidences": list(map(float, confidences)),
        "class_names": list(class_names or ()),
    }
    return _png(sheet, texts={_PREDICTIONS_TEXT: json.dumps(text | layout)})


def captioned_grid(
    images: Images,
    labels: Sequence[int],
    predictions: Sequence[int],
    confidences: Sequence[float] | NDArray[np.floating],
    *,
    class_names: Sequence[str],
) -> bytes:
    """A PNG of the images, enlarged, each with the predicted class and its probability (0 to 1) below.

    A wrong prediction is marked by a thick frame, a cross in the corner and the true class, so that it is recognizable
    without colour.
    """
    return _png(_draw_predictions(images, labels, predictions, confidences, class_names), _FAST)


def has_captions(grid: bytes) -> bool:
    """Whether :func:`as_shown` draws captions below the images of a stored grid."""
    return _PREDICTIONS_TEXT.encode() in grid


def as_shown(grid: bytes) -> bytes:
    """The PNG to show for a stored grid: a :func:`prediction_grid` becomes a :func:`captioned_grid`."""
    return _png(shown_image(grid), _FAST) if has_captions(grid) else grid


def shown_image(grid: bytes) -> Image.Image:
    """The same as an image in RGB."""
    with Image.open(io.BytesIO(grid)) as image:
        if not has_captions(grid):
            return image.convert("RGB")
        stored, sheet = json.loads(getattr(image, "text", {})[_PREDICTIONS_TEXT]), np.asarray(image)
    images = _split_sheet(sheet, len(stored["labels"]), stored)
    return _draw_predictions(
        images, *(stored[name] for name in ("labels", "predictions", "confidences", "class_names"))
    )


def _draw_predictions(
    images: Images,
    labels: Sequence[int],
    predictions: Sequence[int],
    confidences: Sequence[float] | NDArray[np.floating],
    class_names: Sequence[str],
) -> Image.Image:
    class_names = legible(class_names)
    has_second_line = max(map(len, class_names), default=0) > 3
    captions = []
    for label, prediction, confidence in zip(labels, predictions, confidences, strict=True):
        text = _class_name(prediction, class_names)
        truth = "" if prediction == label else f"is {_class_name(label, class_names)}"
        if truth and not has_second_line:
            text += f", {truth}"
        captions.append(_Caption(text, confidence, prediction != label, truth))
    return _draw_captioned(images, captions, has_second_line=has_second_line, has_crosses=True)


@dataclass(frozen=True, slots=True)
class _Caption:
    """The caption below an image."""

    text: str
    confidence: float
    is_marked: bool
    second_line: str = ""  # second line, if any


def _draw_plain(images: Images, columns: int | None, *, scale: int) -> tuple[Image.Image, dict[str, Any]]:
    """All images, row by row, and the layout, from which ``_split_sheet`` returns them."""
    count, *_ = check_images(images)
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    cells = np.zeros((rows * columns, *images.shape[1:]), np.uint8)
    cells[:count] = images
    cells = cells.repeat(scale, axis=1).repeat(scale, axis=2)
    channels = images.shape[3:]
    unpadded = ((0, 0),) * len(channels)
    framed = np.pad(cells, ((0, 0), (_GUTTER, 0), (_GUTTER, 0), *unpadded), constant_values=_GUTTER_GREY)
    framed[count:] = _GUTTER_GREY
    cell_height, cell_width = framed.shape[1:3]
    sheet = framed.reshape(rows, columns, cell_height, cell_width, *channels).swapaxes(1, 2)
    sheet = sheet.reshape(rows * cell_height, columns * cell_width, *channels)
    sheet = np.pad(sheet, ((0, _GUTTER), (0, _GUTTER), *unpadded), constant_values=_GUTTER_GREY)
    return Image.fromarray(sheet), {"columns": columns, "scale": scale, "size": list(images.shape[1:])}


def _draw_captioned(
    images: Images, captions: Sequence[_Caption], *, has_second_line: bool, has_crosses: bool = False
) -> Image.Image:
    """Images with captions. Marked images have a thick frame and, on request, a cross in the corner."""
    count, height, width = check_images(images)
    columns, scale = math.ceil(math.sqrt(count)), _CAPTIONED_SCALE
    rows = math.ceil(count / columns)
    texts = [text for caption in captions for text in (caption.text, caption.second_line)]
    cell_width, cell_height = (
        width * scale + 2 * _MARGIN,
        height * scale + 2 * _MARGIN + (36 if has_second_line else 20),
    )
    sheet = Image.new("RGB", (columns * (cell_width + _GAP) + _GAP, rows * (cell_height + _GAP) + _GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    letters = Lettering(draw, texts, 15 if all(len(caption.text) <= 3 for caption in captions) else 13)
    for index, caption in enumerate(captions):
        left = _GAP + index % columns * (cell_width + _GAP)
        top = _GAP + index // columns * (cell_height + _GAP)
        right, bottom = left + cell_width - 1, top + height * scale + 2 * _MARGIN - 1
        picture = Image.fromarray(images[index]).resize((width * scale, height * scale), Image.Resampling.NEAREST)
        sheet.paste(picture.convert("RGB"), (left + _MARGIN, top + _MARGIN))
        if caption.is_marked:
            draw.rectangle((left, top, right, bottom), outline=WRONG, width=_MARGIN)
        else:
            inset = _MARGIN - 1
            draw.rectangle((left + inset, top + inset, right - inset, bottom - inset), outline=FAINT)
        if caption.is_marked and has_crosses:
            _cross(draw, right - _MARGIN - 15, top + _MARGIN + 4, 11)
        percent = f"{100 * caption.confidence:.0f}%"
        max_width = cell_width - letters.width(percent) - 6
        ink = WRONG if caption.is_marked else INK
        letters.write((left, bottom + 3), letters.shorten(caption.text, max_width), fill=ink)
        letters.write((right, bottom + 3), percent, fill=FAINT, align="r")
        if has_second_line:
            letters.write((left, bottom + 19), letters.shorten(caption.second_line, cell_width), fill=ink)
    return sheet


def _add_histogram(grid: Image.Image, labels: Sequence[int], classes: int, class_names: Sequence[str]) -> Image.Image:
    """The grid with a histogram of the predicted classes below."""
    counts = np.bincount(labels, minlength=classes)
    bars_height, heading_height, names_height = 72, 30, 26
    sheet = Image.new("RGB", (grid.width, grid.height + heading_height + bars_height + names_height), PAPER)
    sheet.paste(grid)
    draw = ImageDraw.Draw(sheet)
    names = [_class_name(label, class_names) for label in range(len(counts))]
    heading, small = Lettering(draw, (), 15), Lettering(draw, names, 13)
    class_count = int(np.count_nonzero(counts))
    heading.write((_GAP, grid.height + 4), f"Predicted classes: {class_count} of {len(counts)}", fill=INK)
    base, bar_width = grid.height + heading_height + bars_height, (grid.width - _GAP) / len(counts)
    highest = max(int(counts.max()), 1)
    equal_share_y = base - round((bars_height - 16) * min(len(labels) / len(counts) / highest, 1))
    spans = [(_GAP + round(label * bar_width), round((label + 1) * bar_width)) for label in range(len(counts))]
    tops = [base - round((bars_height - 16) * count / highest) for count in counts]
    for (left, right), top, count in zip(spans, tops, counts, strict=True):
        draw.rectangle((left, top, right, base), fill=_BAR if count else _GUTTER_GREYS)
    for left in range(_GAP, grid.width - _GAP, 8):  # a dashed line, to distinguish it from the tops of bars
        draw.line((left, equal_share_y, left + 3, equal_share_y), fill=INK)
    for label, ((left, right), top, count) in enumerate(zip(spans, tops, counts, strict=True)):
        middle, ink = (left + right) / 2, INK if count else WRONG
        # With a light outline, so that the line does not cross out the text.
        position, font = (middle, top - 3), small.font
        draw.text(position, str(count), font=font, fill=ink, anchor="mb", stroke_width=2, stroke_fill=PAPER)
        small.write((middle, base + 4), small.shorten(names[label], right - left), fill=FAINT, align="m")
    return sheet


def _describe(sample_classes: SampleClasses, count: int) -> dict[str, Any]:
    labels, confidences = (
        list(map(int, sample_classes.labels)),
        [round(float(value), 4) for value in sample_classes.confidences],
    )
    if not len(labels) == len(confidences) == count:
        raise ValueError(f"{count} images with {len(labels)} sample_classes and {len(confidences)} confidences")
    return {"labels": labels, "confidences": confidences}


def _from_grid(png: bytes) -> tuple[Images, SampleClasses]:
    """The images of a grid, and the predicted classes that its file contains."""
    with Image.open(io.BytesIO(png)) as image:
        text = getattr(image, "text", {}).get(_CLASSES_TEXT)
        sheet = np.asarray(image)
    if text is None:
        raise NotClassified("the sample grid has no predicted classes")
    stored = json.loads(text)
    images = _split_sheet(sheet, len(stored["labels"]), stored)
    return images, SampleClasses(stored["labels"], stored["confidences"])


def _split_sheet(sheet: NDArray[np.uint8], count: int, layout: Mapping[str, Any]) -> Images:
    """The images of a sheet that was drawn with this layout."""
    scale, (height, width, *channels) = layout["scale"], layout["size"]
    images = np.zeros((count, height, width, *channels), np.uint8)
    for index in range(count):
        row, column = divmod(index, layout["columns"])
        top, left = _GUTTER + row * (height * scale + _GUTTER), _GUTTER + column * (width * scale + _GUTTER)
        images[index] = sheet[top : top + height * scale : scale, left : left + width * scale : scale]
    return images


def check_images(images: Images) -> tuple[int, int, int]:
    """Count, rows and columns.

    Raises:
        ValueError: the array does not have the shape of ``Images``, or is empty.
    """
    if not (images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)) or not images.size:
        shapes = "(count, rows, columns) or (count, rows, columns, 3)"
        raise ValueError(f"a grid needs images of the shape {shapes}, got {images.shape}")
    count, height, width = images.shape[:3]
    return count, height, width


def _class_name(label: int, names: Sequence[str]) -> str:
    return names[label] if 0 <= label < len(names) else str(label)


def _cross(draw: ImageDraw.ImageDraw, left: int, top: int, size: int) -> None:
    for colour, width in ((PAPER, 6), (WRONG, 3)):
        draw.line((left, top, left + size, top + size), fill=colour, width=width)
        draw.line((left, top + size, left + size, top), fill=colour, width=width)


def _png(image: Image.Image, level: int = _SMALL, texts: Mapping[str, str] | None = None) -> bytes:
    buffer, info = io.BytesIO(), PngInfo()
    for key, text in (texts or {}).items():
        info.add_text(key, text, zip=True)
    image.save(buffer, "PNG", compress_level=level, pnginfo=info)
    return buffer.getvalue()
