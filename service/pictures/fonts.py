"""Fonts for the texts in pictures: Pillow's for ASCII, DejaVu Sans of matplotlib, and those in ``FOLDER``.

The Docker image has fonts for the scripts of today in that folder. Whether a font has a letter is determined by drawing
it, because some fonts list letters that they draw as nothing, or as a box.
"""

import bisect
import functools
import itertools
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import distribution
from pathlib import Path
from typing import Final, Literal, cast

from PIL import ImageDraw, ImageFont, features

Font = ImageFont.FreeTypeFont
Colour = tuple[int, int, int]

FOLDER: Final = Path("/usr/local/share/fonts")
_DEJAVU: Final = "matplotlib/mpl-data/fonts/ttf/DejaVuSans.ttf"
"""A font with Latin, Greek, Cyrillic and more. It is part of matplotlib, which is not imported for it."""
_DEJAVU_SIZE: Final = 0.85
"""The size at which its letters are as wide as those of Pillow's font."""
_UNASSIGNED: Final = "\U0010ffff"  # never a letter: every font draws its box, or nothing
_TRIAL_SIZE: Final = 16


class Lettering:
    """Draws texts on a picture, each letter in a font that has it."""

    def __init__(self, draw: ImageDraw.ImageDraw, texts: Iterable[str], size: int) -> None:
        """Prepare the font of about this size for these texts. Pillow's own font has only ASCII letters."""
        self._draw, self._size = draw, size
        self._widths = dict[str, float]()
        default = cast("Font", ImageFont.load_default(size))
        self.font = default if all(map(str.isascii, texts)) else _load_font(_dejavu(), round(size * _DEJAVU_SIZE))

    def width(self, text: str) -> float:
        """The width of a text in pixels."""
        if text not in self._widths:  # a grid has few different captions
            self._widths[text] = sum(self._draw.textlength(run, font) for font, run in self._split_runs(text))
        return self._widths[text]

    def shorten(self, text: str, max_width: float) -> str:
        """The text, truncated with an ellipsis if it is wider than ``max_width`` pixels."""
        if self.width(text) <= max_width:
            return text
        kept = bisect.bisect_right(range(1, len(text)), max_width, key=lambda length: self.width(text[:length] + "…"))
        return text[:kept].rstrip() + "…"

    def write(
        self, position: tuple[float, float], text: str, *, fill: Colour, align: Literal["l", "m", "r"] = "l"
    ) -> None:
        """Write a text below ``position``, which is its left end, middle or right end (``align``)."""
        x = position[0] - (0 if align == "l" else self.width(text) * (0.5 if align == "m" else 1))
        baseline = position[1] + self.font.getmetrics()[0]
        for font, run in self._split_runs(text):
            self._draw.text((x, baseline), run, font=font, fill=fill, anchor="ls")
            if len(run) < len(text):
                x += self._draw.textlength(run, font)

    def _split_runs(self, text: str) -> Iterator[tuple[Font, str]]:
        if text.isascii():
            yield self.font, text
            return
        for font, letters in itertools.groupby(text, self._font_of):
            yield font, "".join(letters)

    def _font_of(self, letter: str) -> Font:
        path = None if letter.isascii() else font_of(letter)
        return self.font if path in (None, _dejavu()) else _load_font(path, self._size)


def legible(names: Sequence[str], noun: str = "class") -> list[str]:
    """The names as pictures show them; all are different.

    Letters are composed with their accents, because macOS decomposes them in the names of folders. Symbols
    that no font has are omitted. A name with letters that no font has, or with nothing but such symbols,
    becomes its noun and number: ``class 3``.
    """
    if all(name.isascii() and name.isprintable() for name in names):
        return list(names)
    names = [unicodedata.normalize("NFC", name) for name in names]
    shown = [_remove_missing_symbols(name) for name in names]
    counts = Counter(shown)
    return [
        text if text is not None and (text == name or counts[text] == 1) else f"{noun} {number}"
        for number, (name, text) in enumerate(zip(names, shown, strict=True))
    ]


def further_fonts(texts: Iterable[str]) -> list[Path]:
    """The fonts for the letters of the texts that DejaVu Sans lacks."""
    paths = {font_of(letter) for text in texts for letter in text if not letter.isascii()}
    return sorted(path for path in paths if path not in (None, _dejavu()))


@functools.cache
def font_of(letter: str) -> Path | None:
    """The first font that has a letter; ``None`` if there is none, or Pillow cannot lay the letter out.

    For letters that are written from right to left, Pillow needs the library FriBiDi, which arranges and joins them.
    """
    is_leftwards = unicodedata.bidirectional(letter) in ("R", "AL")
    if not letter.isprintable() or (is_leftwards and not features.check("raqm")):
        return None
    return next((path for path in _fonts() if letter == " " or _draws(path, letter)), None)


def _remove_missing_symbols(name: str) -> str | None:
    """The name without symbols that no font has; ``None`` if no font has one of its letters, or nothing remains."""
    if any(letter.isalpha() and font_of(letter) is None for letter in name):
        return None
    cleaned = "".join(" " if letter.isspace() else letter for letter in name if letter.isspace() or font_of(letter))
    return (cleaned if cleaned == name else " ".join(cleaned.split())) or None


@functools.cache
def _fonts() -> tuple[Path, ...]:
    return _dejavu(), *sorted(FOLDER.rglob("*.[ot]t[cf]"))


def _draws(path: Path, letter: str) -> bool:
    """Whether a font draws a letter neither as nothing nor as its box."""
    try:
        font = ImageFont.truetype(str(path), _TRIAL_SIZE, layout_engine=ImageFont.Layout.BASIC)
        mask, box = font.getmask(letter), font.getmask(_UNASSIGNED)
    except OSError:  # it cannot be read, or has only coloured pictures of other sizes
        return False
    return mask.getbbox() is not None and (mask.size, bytes(mask)) != (box.size, bytes(box))


@functools.cache
def _dejavu() -> Path:
    return Path(str(distribution("matplotlib").locate_file(_DEJAVU)))


@functools.lru_cache
def _load_font(path: Path, size: int) -> Font:
    return ImageFont.truetype(str(path), size)
