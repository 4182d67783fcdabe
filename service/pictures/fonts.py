"""Letters of the texts in pictures: from the fonts of the libraries, else from fonts of the system, if any has them.

Which letters a font has is found by drawing them, because that is what counts: some fonts list letters that they show
as nothing, or as a box. The fonts of the system are searched once for each letter that the libraries' fonts lack.
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
"""Where Linux, macOS and Windows have their fonts."""
_ENDINGS: Final = (".ttf", ".otf", ".ttc")
_STYLES: Final = ("bold", "italic", "oblique", "light", "thin", "black", "condensed", "serif", "mono")
"""Parts of the names of fonts that are used only if no other has a letter."""
_PLACEHOLDERS: Final = "lastresort"  # a font of macOS that has a box for every letter
_UNASSIGNED: Final = "\U0010ffff"  # never a letter: every font draws its box, or nothing
_TRIAL_SIZE: Final = 16

_found: Final[dict[str, Path | None]] = {}
"""The font of each letter that was looked for; ``None``: no font has it."""


class Lettering:
    """Writes texts on a picture, each letter in a font that has it."""

    def __init__(self, draw: ImageDraw.ImageDraw, texts: Iterable[str], size: int) -> None:
        """Letters of about this size for these texts; Pillow's own font has those of ASCII only."""
        beyond = {letter for text in texts if not text.isascii() for letter in text}
        self._draw = draw
        self.font: Font = _opened(_dejavu(), round(size * _DEJAVU_SIZE)) if beyond else ImageFont.load_default(size)
        self._others = {
            letter: _opened(path, size) for letter, path in _fonts_of(beyond).items() if path not in (None, _dejavu())
        }

    def width(self, text: str) -> float:
        """The width of a text in pixels."""
        return sum(self._draw.textlength(part, font) for font, part in self._parts(text))

    def shorten(self, text: str, room: float) -> str:
        """The text, or as much of it as is at most ``room`` pixels wide, with an ellipsis."""
        if self.width(text) <= room:
            return text
        while text and self.width(text + "…") > room:
            text = text[:-1]
        return text.rstrip() + "…"

    def write(
        self, place: tuple[float, float], text: str, *, fill: Colour, align: Literal["l", "m", "r"] = "l"
    ) -> None:
        """Write a text below ``place``, which is at its left end, in the middle, or at its right end."""
        parts = list(self._parts(text))
        if not any(font is not self.font for font, _ in parts):
            self._draw.text(place, text, font=self.font, fill=fill, anchor=f"{align}a")
            return
        left = place[0] - self.width(text) * {"l": 0, "m": 0.5, "r": 1}[align]
        ascent = self.font.getmetrics()[0] if isinstance(self.font, ImageFont.FreeTypeFont) else 0
        for font, part in parts:
            self._draw.text((left, place[1] + ascent), part, font=font, fill=fill, anchor="ls")
            left += self._draw.textlength(part, font)

    def _parts(self, text: str) -> Iterator[tuple[Font, str]]:
        if not self._others:
            yield self.font, text
            return
        for font, letters in itertools.groupby(text, lambda letter: self._others.get(letter, self.font)):
            yield font, "".join(letters)


def legible(names: Sequence[str], noun: str = "class") -> list[str]:
    """The names as pictures show them, each different from the others.

    Letters and their accents are composed, since folders on a Mac have them apart. Symbols that no font has are left
    out. A name with such letters, or of such symbols only, becomes ``class 3``, its noun and number.
    """
    if all(name.isascii() and name.isprintable() for name in names):
        return list(names)
    names = [unicodedata.normalize("NFC", name) for name in names]
    fonts = _fonts_of({letter for name in names for letter in name})
    shown = [_without_lacking(name, fonts) for name in names]
    counts = Counter(shown)
    return [
        text if text is not None and (text == name or counts[text] == 1) else f"{noun} {number}"
        for number, (name, text) in enumerate(zip(names, shown, strict=True))
    ]


def is_drawable(letter: str) -> bool:
    """Whether any font has this letter."""
    return _fonts_of({letter})[letter] is not None


def system_fonts(texts: Iterable[str]) -> list[Path]:
    """Fonts of the system that have those letters of the texts that DejaVu Sans lacks."""
    letters = {letter for text in texts if not text.isascii() for letter in text}
    return sorted({path for path in _fonts_of(letters).values() if path not in (None, _dejavu())})


def _without_lacking(name: str, fonts: dict[str, Path | None]) -> str | None:
    """The name without symbols that no font has; ``None`` if it has such letters, or nothing else."""
    if any(fonts[letter] is None and letter.isalpha() for letter in name):
        return None
    kept = "".join(" " if letter.isspace() else letter for letter in name if letter.isspace() or fonts[letter])
    return (kept if kept == name else " ".join(kept.split())) or None


def _fonts_of(letters: set[str]) -> dict[str, Path | None]:
    """The first font that has each letter."""
    if not _found:
        _found.update(dict.fromkeys(string.printable.strip() + " ", _dejavu()))
    missing = letters - _found.keys()
    for path in _all_fonts() if missing else ():
        having = _having(path, missing)
        _found.update(dict.fromkeys(having, path))
        missing -= having
        if not missing:
            break
    _found.update(dict.fromkeys(missing))
    return {letter: _found[letter] for letter in letters}


def _all_fonts() -> Iterator[Path]:
    yield _dejavu()
    yield from _installed()


@functools.cache
def _installed() -> Sequence[Path]:
    """The fonts of the system, plain ones first."""
    files = (Path(root, name) for folder in _FOLDERS for root, _, names in os.walk(folder) for name in names)
    fonts = [path for path in files if path.suffix.lower() in _ENDINGS and _PLACEHOLDERS not in path.name.lower()]
    return sorted(fonts, key=lambda path: (any(style in path.name.lower() for style in _STYLES), path.name, path))


def _having(path: Path, letters: set[str]) -> set[str]:
    """Those of the letters that a font draws as more than nothing or its box."""
    try:
        font = ImageFont.truetype(str(path), _TRIAL_SIZE, layout_engine=ImageFont.Layout.BASIC)
        box = _pixels(font, _UNASSIGNED)
        return {letter for letter in letters if _is_drawn(font, letter, box)}
    except OSError:  # it cannot be read, or has coloured pictures of other sizes only
        return set()


def _is_drawn(font: ImageFont.FreeTypeFont, letter: str, box: object) -> bool:
    return _can_be_laid_out(letter) and _pixels(font, letter) not in (None, box)


def _pixels(font: ImageFont.FreeTypeFont, letter: str) -> tuple[object, ...] | None:
    """What a letter looks like; ``None``: nothing is seen."""
    mask = font.getmask(letter)
    return (mask.size, bytes(mask)) if mask.getbbox() else None


@functools.cache
def _can_be_laid_out(letter: str) -> bool:
    """Whether letters that are written from right to left, if this is one, come in their order and joined: Pillow needs
    the library FriBiDi for that."""
    is_leftwards = unicodedata.bidirectional(letter) in ("R", "AL")
    return letter.isprintable() and (not is_leftwards or _opened(_dejavu(), 11).layout_engine == ImageFont.Layout.RAQM)


@functools.cache
def _dejavu() -> Path:
    return Path(str(distribution("matplotlib").locate_file(_DEJAVU)))


@functools.lru_cache
def _opened(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(path), size)
