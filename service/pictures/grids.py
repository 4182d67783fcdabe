"""Grids of images, with or without predictions, and the film of a training's grids. Pillow only."""

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from service.datasets import Dataset

MAX_FRAMES = 120
LAST_FRAME_MS = 2000

_GUTTER = 2  # pixels, between the images and around them
_GUTTER_GREY = 52  # dark, but not the black of the digits' background, so that each image keeps its frame
_PAPER = (22, 24, 28)
_INK = (235, 235, 235)
_FAINT = (150, 155, 165)
_WRONG = (230, 159, 0)  # Okabe and Ito's orange: bright on the dark ground for every kind of colour vision

Images = NDArray[np.uint8]  # (count, rows, columns)


def sample_grid(images: Images, *, columns: int | None = None, scale: int = 2) -> bytes:
    """A PNG with all images, row by row, each pixel ``scale`` times as large; near-square unless told otherwise.

    Raises:
        ValueError: there is no image, or the array has another shape than (count, rows, columns).
    """
    count, height, width = _check(images)
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    cells = np.zeros((rows * columns, height, width), np.uint8)
    cells[:count] = images
    cells = cells.repeat(scale, axis=1).repeat(scale, axis=2)
    framed = np.pad(cells, ((0, 0), (_GUTTER, 0), (_GUTTER, 0)), constant_values=_GUTTER_GREY)
    framed[count:] = _GUTTER_GREY
    high, wide = framed.shape[1:]
    sheet = framed.reshape(rows, columns, high, wide).transpose(0, 2, 1, 3).reshape(rows * high, columns * wide)
    sheet = np.pad(sheet, ((0, _GUTTER), (0, _GUTTER)), constant_values=_GUTTER_GREY)
    return _png(Image.fromarray(sheet))


def preview_png(dataset: Dataset, *, per_class: int = 6, scale: int = 1) -> bytes:
    """The first few training images of each class, one column a class."""
    images, labels = dataset.train_images, dataset.train_labels
    classes = dataset.info.classes
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
    columns: int | None = None,
    scale: int = 3,
) -> bytes:
    """A PNG of the images with the predicted class and its probability (0 to 1) under each.

    A wrong one has a thick frame, a cross in its corner and the true class beside: its colour only helps.

    Raises:
        ValueError: no image, or not as many labels, predictions and confidences as images.
    """
    count, height, width = _check(images)
    if not len(labels) == len(predictions) == len(confidences) == count:
        raise ValueError(
            f"{count} images with {len(labels)} labels, {len(predictions)} predictions, {len(confidences)} confidences"
        )
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    font = ImageFont.load_default(13)
    two_lines = class_names is not None and max(map(len, class_names), default=0) > 3
    caption, margin, gap = (36 if two_lines else 20), 4, 8
    cell_width, cell_height = width * scale + 2 * margin, height * scale + 2 * margin + caption
    sheet = Image.new("RGB", (columns * (cell_width + gap) + gap, rows * (cell_height + gap) + gap), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for index in range(count):
        left = gap + index % columns * (cell_width + gap)
        top = gap + index // columns * (cell_height + gap)
        right, bottom = left + cell_width - 1, top + height * scale + 2 * margin - 1
        picture = Image.fromarray(images[index]).resize((width * scale, height * scale), Image.Resampling.NEAREST)
        sheet.paste(picture.convert("RGB"), (left + margin, top + margin))
        is_right = int(predictions[index]) == int(labels[index])
        if is_right:
            thin = margin - 1
            draw.rectangle((left + thin, top + thin, right - thin, bottom - thin), outline=_FAINT)
        else:
            draw.rectangle((left, top, right, bottom), outline=_WRONG, width=margin)
            _cross(draw, right - margin - 15, top + margin + 4, 11)
        predicted = _class_name(int(predictions[index]), class_names)
        correction = "" if is_right else f"is {_class_name(int(labels[index]), class_names)}"
        if correction and not two_lines:
            predicted += f", {correction}"
        percent = f"{100 * float(confidences[index]):.0f}%"
        room = cell_width - draw.textlength(percent, font) - 6
        ink = _INK if is_right else _WRONG
        draw.text((left, bottom + 3), _shorten(predicted, room, draw, font), font=font, fill=ink)
        draw.text((right, bottom + 3), percent, font=font, fill=_FAINT, anchor="ra")
        if two_lines:
            draw.text((left, bottom + 19), _shorten(correction, cell_width, draw, font), font=font, fill=ink)
    return _png(sheet)


def film(pngs: Sequence[bytes | Path], *, epochs: Sequence[int], seconds: float = 8.0) -> bytes:
    """A looping animated GIF of grids in their order, each with its epoch under it.

    It lasts about ``seconds``, and holds its last frame for two more. Past 120 grids every n-th is left out, the first
    and the last never; the files of those left out are not read.

    Raises:
        ValueError: no grid, or not one epoch a grid.
    """
    if not pngs or len(pngs) != len(epochs):
        raise ValueError(f"{len(pngs)} grids with {len(epochs)} epochs")
    chosen = sorted({round(position) for position in np.linspace(0, len(pngs) - 1, min(len(pngs), MAX_FRAMES))})
    grids = [_open_rgb(pngs[index]) for index in chosen]
    size = (max(grid.width for grid in grids), max(grid.height for grid in grids))
    frames = [
        _film_frame(grid, size, epochs[index], done=(position + 1) / len(chosen))
        for position, (index, grid) in enumerate(zip(chosen, grids, strict=True))
    ]
    # GIF counts hundredths of a second, and browsers take less than two of them for ten.
    each_ms = 10 * min(100, max(2, round(100 * seconds / len(frames))))
    durations = [each_ms] * (len(frames) - 1) + [max(each_ms, LAST_FRAME_MS)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=False)
    return buffer.getvalue()


_CAPTION_HEIGHT = 26


def _make_film_palette(greys: int = 24, tints: int = 7) -> Image.Image:
    """The colours of a film: few, because fewer pack better. Greys for digits, tints of the mark for a wrong one."""
    r, g, b = _WRONG
    colours = [(level * 255 // (greys - 1),) * 3 for level in range(greys)]
    colours += [(r * tint // tints, g * tint // tints, b * tint // tints) for tint in range(1, tints + 1)]
    palette = Image.new("P", (1, 1))
    palette.putpalette([part for colour in colours for part in colour])
    return palette


_FILM_PALETTE = _make_film_palette()


def _film_frame(grid: Image.Image, size: tuple[int, int], epoch: int, *, done: float) -> Image.Image:
    width, height = size
    frame = Image.new("RGB", (width, height + _CAPTION_HEIGHT), _PAPER)
    frame.paste(grid, ((width - grid.width) // 2, 0))
    draw = ImageDraw.Draw(frame)
    draw.text((6, height + 2), f"epoch {epoch}", font=ImageFont.load_default(15), fill=_INK)
    draw.rectangle((0, height + _CAPTION_HEIGHT - 3, round(width * done) - 1, height + _CAPTION_HEIGHT), fill=_FAINT)
    return frame.quantize(palette=_FILM_PALETTE, dither=Image.Dither.NONE)


def _open_rgb(png: bytes | Path) -> Image.Image:
    with Image.open(io.BytesIO(png) if isinstance(png, bytes) else png) as image:
        return image.convert("RGB")


def _check(images: Images) -> tuple[int, int, int]:
    if images.ndim != 3 or not images.size:
        raise ValueError(f"a grid needs images of the shape (count, rows, columns), got {images.shape}")
    count, height, width = images.shape
    return count, height, width


def _class_name(label: int, names: Sequence[str] | None) -> str:
    return names[label] if names is not None and 0 <= label < len(names) else str(label)


def _shorten(
    text: str, room: float, draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> str:
    if draw.textlength(text, font) <= room:
        return text
    while text and draw.textlength(text + "…", font) > room:
        text = text[:-1]
    return text.rstrip() + "…"


def _cross(draw: ImageDraw.ImageDraw, left: int, top: int, size: int) -> None:
    for colour, width in ((_PAPER, 6), (_WRONG, 3)):
        draw.line((left, top, left + size, top + size), fill=colour, width=width)
        draw.line((left, top + size, left + size, top), fill=colour, width=width)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()
