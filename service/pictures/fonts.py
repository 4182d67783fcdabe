"""Fonts for the texts in pictures: those of the libraries or, for letters that these lack, of the system.

Whether a font has a letter is determined by drawing it, because some fonts list letters that they draw as
nothing, or as a box. The fonts of the system are searched once for each letter that the libraries' fonts
lack.
"""

import functools
import itertools
import os
import string
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import distribution
from pathlib import Path
from typing import Final, Literal

from PIL import ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Colour = tuple[int, int, int]

_DEJAVU: Final = "matplotlib/mpl-data/fonts/ttf/DejaVuSans.ttf"
"""A font with Latin, Greek, Cyrillic and more. It is part of matplotlib, which is not imported for it."""
_DEJAVU_SIZE: Final = 0.85
"""The size at which its letters are as wide as those of Pillow's font."""
_FOLDERS: Final = tuple(
    Path(os.path.expanduser(folder))  # unlike Path.expanduser, it does not fail for a user without a home
    for folder in (
        "~/.local/share/fonts",
        "~/.fonts",
        "/usr/local/share/fonts",
        "/usr/share/fonts",
        "~/Library/Fonts",
        "/Library/Fonts",
        "/System/Library/Fonts",
        "C:/Windows/Fonts",
    )
)
"""The font folders of Linux, macOS and Windows."""
_SUFFIXES: Final = (".ttf", ".otf", ".ttc")
_STYLES: Final = ("bold", "italic", "oblique", "light", "thin", "black", "condensed", "serif", "mono")
"""Words in the names of fonts that are used only if no other font has a letter."""
_PLACEHOLDER_FONT: Final = "lastresort"  # a font of macOS that has a box for every letter
_UNASSIGNED: Final = "\U0010ffff"  # never a letter: every font draws its box, or nothing
_TRIAL_SIZE: Final = 16

_font_of_letter: Final[dict[str, Path | None]] = {}
"""The font of each letter that was searched for; ``None``: no font has it."""


class Lettering:
    """Draws texts on a picture, each letter in a font that has it."""

    def __init__(self, draw: ImageDraw.ImageDraw, texts: Iterable[str], size: int) -> None:
        """Prepare fonts of about this size for these texts. Pillow's own font has only ASCII letters."""
        letters = {letter for text in texts if not text.isascii() for letter in text}
        self._draw = draw
        self.font: Font = _load_font(_dejavu(), round(size * _DEJAVU_SIZE)) if letters else ImageFont.load_default(size)
        self._fallback_fonts = {
            letter: _load_font(path, size)
            for letter, path in _find_fonts(letters).items()
            if path not in (None, _dejavu())
        }

    def width(self, text: str) -> float:
        """The width of a text in pixels."""
        return sum(self._draw.textlength(run, font) for font, run in self._split_runs(text))

    def shorten(self, text: str, max_width: float) -> str:
        """The text, truncated with an ellipsis if it is wider than ``max_width`` pixels."""
        if self.width(text) <= max_width:
            return text
        while text and self.width(text + "…") > max_width:
            text = text[:-1]
        return text.rstrip() + "…"

    def write(
        self, position: tuple[float, float], text: str, *, fill: Colour, align: Literal["l", "m", "r"] = "l"
    ) -> None:
        """Write a text below ``position``, which is its left end, middle or right end (``align``)."""
        runs = list(self._split_runs(text))
        if not any(font is not self.font for font, _ in runs):
            self._draw.text(position, text, font=self.font, fill=fill, anchor=f"{align}a")
            return
        x = position[0] - self.width(text) * {"l": 0, "m": 0.5, "r": 1}[align]
        ascent = self.font.getmetrics()[0] if isinstance(self.font, ImageFont.FreeTypeFont) else 0
        for font, run in runs:
            self._draw.text((x, position[1] + ascent), run, font=font, fill=fill, anchor="ls")
            x += self._draw.textlength(run, font)

    def _split_runs(self, text: str) -> Iterator[tuple[Font, str]]:
        if not self._fallback_fonts:
            yield self.font, text
            return
        for font, letters in itertools.groupby(text, lambda letter: self._fallback_fonts.get(letter, self.font)):
            yield font, "".join(letters)


def legible(names: Sequence[str], noun: str = "class") -> list[str]:
    """The names as pictures show them; all are different.

    Letters are composed with their accents, because macOS decomposes them in the names of folders. Symbols
    that no font has are omitted. A name with letters that no font has, or with nothing but such symbols,
    becomes its noun and number: ``class 3``.
    """
    if all(name.isascii() and name.isprintable() for name in names):
        return list(names)
    names = [unicodedata.normalize("NFC", name) for name in names]
    fonts = _find_fonts({letter for name in names for letter in name})
    shown = [_remove_missing_symbols(name, fonts) for name in names]
    counts = Counter(shown)
    return [
        text if text is not None and (text == name or counts[text] == 1) else f"{noun} {number}"
        for number, (name, text) in enumerate(zip(names, shown, strict=True))
    ]


def is_drawable(letter: str) -> bool:
    """Whether any font has this letter."""
    return _find_fonts({letter})[letter] is not None


def system_fonts(texts: Iterable[str]) -> list[Path]:
    """The system's fonts for the letters of the texts that DejaVu Sans lacks."""
    letters = {letter for text in texts if not text.isascii() for letter in text}
    return sorted({path for path in _find_fonts(letters).values() if path not in (None, _dejavu())})


def _remove_missing_symbols(name: str, fonts: dict[str, Path | None]) -> str | None:
    """The name without symbols that no font has; ``None`` if no font has one of its letters, or nothing remains."""
    if any(fonts[letter] is None and letter.isalpha() for letter in name):
        return None
    cleaned = "".join(" " if letter.isspace() else letter for letter in name if letter.isspace() or fonts[letter])
    return (cleaned if cleaned == name else " ".join(cleaned.split())) or None


def _find_fonts(letters: set[str]) -> dict[str, Path | None]:
    """The first font that has each letter."""
    if not _font_of_letter:
        _font_of_letter.update(dict.fromkeys(string.printable.strip() + " ", _dejavu()))
    missing = letters - _font_of_letter.keys()
    for path in _candidate_fonts() if missing else ():
        supported = _supported_letters(path, missing)
        _font_of_letter.update(dict.fromkeys(supported, path))
        missing -= supported
        if not missing:
            break
    _font_of_letter.update(dict.fromkeys(missing))
    return {letter: _font_of_letter[letter] for letter in letters}


def _candidate_fonts() -> Iterator[Path]:
    yield _dejavu()
    yield from _installed_fonts()


@functools.cache
def _installed_fonts() -> Sequence[Path]:
    """The fonts of the system, plain ones first."""
    files = (Path(root, name) for folder in _FOLDERS for root, _, names in os.walk(folder) for name in names)
    fonts = [path for path in files if path.suffix.lower() in _SUFFIXES and _PLACEHOLDER_FONT not in path.name.lower()]
    return sorted(fonts, key=lambda path: (any(style in path.name.lower() for style in _STYLES), path.name, path))


def _supported_letters(path: Path, letters: set[str]) -> set[str]:
    """The letters that a font draws neither as nothing nor as its box."""
    try:
        font = ImageFont.truetype(str(path), _TRIAL_SIZE, layout_engine=ImageFont.Layout.BASIC)
        box = _pixels(font, _UNASSIGNED)
        return {letter for letter in letters if _is_drawn(font, letter, box)}
    except OSError:  # it cannot be read, or has only coloured pictures of other sizes
        return set()


def _is_drawn(font: ImageFont.FreeTypeFont, letter: str, box: object) -> bool:
    return _can_be_laid_out(letter) and _pixels(font, letter) not in (None, box)


def _pixels(font: ImageFont.FreeTypeFont, letter: str) -> tuple[object, ...] | None:
    """The size and the pixels of a letter; ``None`` if it is blank."""
    mask = font.getmask(letter)
    return (mask.size, bytes(mask)) if mask.getbbox() else None


@functools.cache
def _can_be_laid_out(letter: str) -> bool:
    """Whether Pillow can lay the letter out. For letters that are written from right to left, it needs the
    library FriBiDi, which arranges and joins them."""
    is_leftwards = unicodedata.bidirectional(letter) in ("R", "AL")
    return letter.isprintable() and (
        not is_leftwards or _load_font(_dejavu(), 11).layout_engine == ImageFont.Layout.RAQM
    )


@functools.cache
def _dejavu() -> Path:
    return Path(str(distribution("matplotlib").locate_file(_DEJAVU)))


@functools.lru_cache
def _load_font(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(path), size)
