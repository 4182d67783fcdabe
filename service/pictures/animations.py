"""Animations of a training's sample grids and of walks through a latent space. Uses only Pillow."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from service.pictures.grids import FAINT, INK, PAPER, WRONG, Images, check_images, shown_image

MAX_FRAMES = 120
LAST_FRAME_MS = 2000

AnimationFormat = Literal["gif", "webp"]


def animate(
    pngs: Sequence[bytes | Path],
    *,
    epochs: Sequence[int],
    seconds: float = 8.0,
    fmt: AnimationFormat = "gif",
    is_colour: bool = False,
) -> bytes:
    """A looping animation of sample grids in order, each with its epoch below.

    Both formats have the same pixels. A WebP has 10% to 40% of the size of a GIF; GIFs open everywhere.

    The animation takes about ``seconds``, and shows the last frame for two more seconds. Of more than 120 grids, only
    some are used, at even distances and always with the first and the last; the files of the others are not read.

    Args:
        is_colour: whether the images are in colour. Then all frames share a palette that is chosen for them; otherwise
            the palette has greys, and tints of the colour that marks a wrong prediction.

    Raises:
        ValueError: there is no grid, or the number of epochs differs from the number of grids.
    """
    if not pngs or len(pngs) != len(epochs):
        raise ValueError(f"{len(pngs)} grids with {len(epochs)} epochs")
    chosen = sorted({round(position) for position in np.linspace(0, len(pngs) - 1, min(len(pngs), MAX_FRAMES))})
    grids = [_open(pngs[index]) for index in chosen]
    size = (max(grid.width for grid in grids), max(grid.height for grid in grids))
    palette = _palette_for(grids) if is_colour else _GREY_PALETTE
    frames = [
        _frame(grid, size, epochs[index], palette, progress=(position + 1) / len(chosen))
        for position, (index, grid) in enumerate(zip(chosen, grids, strict=True))
    ]
    # GIF durations are in hundredths of a second, and browsers replace durations below two of them by ten.
    frame_ms = 10 * min(100, max(2, round(100 * seconds / len(frames))))
    durations = [frame_ms] * (len(frames) - 1) + [max(frame_ms, LAST_FRAME_MS)]
    # For lossless WebP, quality means effort: the file is at most 10% larger than with the maximum, in a third of the
    # time.
    options: dict[str, Any] = {"lossless": True, "method": 1, "quality": 20} if fmt == "webp" else {"optimize": False}
    buffer = io.BytesIO()
    frames[0].save(buffer, fmt.upper(), save_all=True, append_images=frames[1:], duration=durations, loop=0, **options)
    return buffer.getvalue()


def walk_gif(images: Images, *, scale: int = 1, frame_ms: int = 80) -> bytes:
    """A looping GIF of images that each change a little from the one before."""
    check_images(images)
    frames = [Image.fromarray(image.repeat(scale, axis=0).repeat(scale, axis=1)) for image in images]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=frame_ms, loop=0)
    return buffer.getvalue()


_CAPTION_HEIGHT = 26
_PALETTE_GRIDS = 8  # number of grids from which the palette is chosen


def _make_grey_palette(greys: int = 24, tints: int = 7) -> Image.Image:
    """The palette of grey images: greys, and tints of the colour that marks a wrong prediction. Few colours compress
    better."""
    r, g, b = WRONG
    colours = [(level * 255 // (greys - 1),) * 3 for level in range(greys)]
    colours += [(r * tint // tints, g * tint // tints, b * tint // tints) for tint in range(1, tints + 1)]
    palette = Image.new("P", (1, 1))
    palette.putpalette([channel for colour in colours for channel in colour])
    return palette


_GREY_PALETTE = _make_grey_palette()


def _palette_for(grids: Sequence[Image.Image]) -> Image.Image:
    """The palette that suits the grids best, including the colours of the captions."""
    chosen = [grids[round(position)] for position in np.linspace(0, len(grids) - 1, min(len(grids), _PALETTE_GRIDS))]
    pixels = np.concatenate([np.asarray(grid)[::2, ::2].reshape(-1, 3) for grid in chosen])
    caption_colours = (PAPER, INK, FAINT, WRONG)
    quantized = Image.fromarray(pixels[None]).quantize(256 - len(caption_colours), method=Image.Quantize.MEDIANCUT)
    colours = (quantized.getpalette() or [])[: 3 * (256 - len(caption_colours))]
    palette = Image.new("P", (1, 1))
    palette.putpalette([*colours, *(channel for colour in caption_colours for channel in colour)])
    return palette


def _frame(
    grid: Image.Image, size: tuple[int, int], epoch: int, palette: Image.Image, *, progress: float
) -> Image.Image:
    width, height = size
    frame = Image.new("RGB", (width, height + _CAPTION_HEIGHT), PAPER)
    frame.paste(grid, ((width - grid.width) // 2, 0))
    draw = ImageDraw.Draw(frame)
    draw.text((6, height + 2), f"epoch {epoch}", font=ImageFont.load_default(15), fill=INK)
    draw.rectangle((0, height + _CAPTION_HEIGHT - 3, round(width * progress) - 1, height + _CAPTION_HEIGHT), fill=FAINT)
    return frame.quantize(palette=palette, dither=Image.Dither.NONE)


def _open(png: bytes | Path) -> Image.Image:
    return shown_image(png if isinstance(png, bytes) else png.read_bytes())
