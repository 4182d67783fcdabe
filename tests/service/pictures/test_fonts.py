"""Names in scripts that the libraries' fonts lack, with and without a system font that has their letters."""

import io
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image, ImageDraw, features

from service.pictures import fonts, grids, plots

CAT, DOG, BIRD = "猫", "犬", "鳥"
DIGITS = np.random.default_rng(0).integers(0, 256, (3, 28, 28)).astype(np.uint8)


def rectangle(width: int, height: int) -> object:
    pen = TTGlyphPen(None)
    for move, point in ((pen.moveTo, (50, 0)), *((pen.lineTo, (50 + x, y)) for x, y in ((0, height), (width, height)))):
        move(point)
    pen.lineTo((50 + width, 0))
    pen.closePath()
    return pen.glyph()


def write_font(path: Path, letters: str) -> None:
    """Write a font with these letters only, drawn as bars of different heights."""
    builder = FontBuilder(1000, isTTF=True)
    names = [".notdef", *(f"letter{n}" for n in range(len(letters)))]
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(letter): f"letter{n}" for n, letter in enumerate(letters)})
    builder.setupGlyf({name: rectangle(800, 800 - 150 * n) for n, name in enumerate(names)})
    builder.setupHorizontalMetrics(dict.fromkeys(names, (1000, 50)))
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    # matplotlib identifies fonts by family, and caches those of earlier tests, whose files no longer exist.
    builder.setupNameTable({"familyName": f"{path.stem} {uuid4().hex}", "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=900, sTypoDescender=-100, usWinAscent=900, usWinDescent=100)
    builder.setupPost()
    path.parent.mkdir(parents=True, exist_ok=True)
    builder.save(path)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of fonts."""
    monkeypatch.setattr(fonts, "FOLDER", tmp_path / "fonts")
    forget_fonts()
    yield tmp_path / "fonts"
    forget_fonts()


def forget_fonts() -> None:
    fonts._fonts.cache_clear()
    fonts.font_of.cache_clear()


def pixels(content: bytes) -> bytes:
    with Image.open(io.BytesIO(content)) as image:
        return image.tobytes()


def predicted(*names: str) -> bytes:
    return pixels(grids.as_shown(grids.prediction_grid(DIGITS, [0, 1, 2], [0, 1, 1], [0.9] * 3, class_names=names)))


def classified(*names: str) -> bytes:
    png = grids.sample_grid(DIGITS, sample_classes=grids.SampleClasses([0, 1, 2], [0.9] * 3))
    return pixels(grids.classified_grid(png, classes=3, class_names=names))


def confusion(*names: str) -> bytes:
    return pixels(plots.confusion(np.eye(3, dtype=int), class_names=names, title="t"))


def importance(*names: str) -> bytes:
    bars = [(name, 0.1 * index, 0.0) for index, name in enumerate(names)]
    return pixels(plots.importance(bars, accuracy=0.9, epoch=1))


PICTURES = pytest.mark.parametrize("draw", [predicted, classified, confusion, importance])


@PICTURES
def test_names_are_drawn_in_a_font_that_has_their_letters(folder: Path, draw: Callable[..., bytes]) -> None:
    write_font(folder / "deep" / "Mine-Bold.ttf", CAT)
    write_font(folder / "Cjk Sans.ttf", CAT + DOG + BIRD)
    (folder / "broken.ttf").write_bytes(b"no font")
    drawings = {draw(CAT, DOG, "bird"), draw(DOG, CAT, "bird"), draw(CAT, BIRD, "bird")}
    assert len(drawings) == 3, "each letter looks as it does in the font, not like the same box"
    assert draw("class 0", "class 1", "bird") not in drawings


@PICTURES
def test_a_name_without_a_font_is_replaced_by_the_number_of_its_class(folder: Path, draw: Callable[..., bytes]) -> None:
    noun = "column" if draw is importance else "class"
    assert draw(CAT, "dog", BIRD) == draw(f"{noun} 0", "dog", f"{noun} 2")


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["cat", "Hund", "Äpfel"], ["cat", "Hund", "Äpfel"]),
        ([unicodedata.normalize("NFD", "Äpfel"), "Жук"], ["Äpfel", "Жук"]),
        (["\U0001fabf goose", "hen\N{VARIATION SELECTOR-16}"], ["goose", "hen"]),
        (["\U0001fabf", "goose"], ["class 0", "goose"]),
        (["\U0001fabf goose", "goose"], ["class 0", "goose"]),
        (["東京 tower", "tower"], ["class 0", "tower"]),
        (["two\nlines", "a\u3000b"], ["two lines", "a b"]),
    ],
)
def test_unsupported_symbols_are_dropped_and_names_stay_distinct(
    folder: Path, names: list[str], shown: list[str]
) -> None:
    assert fonts.legible(names) == shown


@pytest.mark.parametrize("has_fribidi", [True, False])
def test_right_to_left_names_are_not_drawn_backwards(
    folder: Path, monkeypatch: pytest.MonkeyPatch, has_fribidi: bool
) -> None:
    if has_fribidi and not features.check("raqm"):
        pytest.skip("Pillow finds no FriBiDi here")
    monkeypatch.setattr(features, "check", lambda feature: has_fribidi)
    assert fonts.legible(["قطة", "كلب"]) == (["قطة", "كلب"] if has_fribidi else ["class 0", "class 1"])


def test_a_text_in_several_fonts_is_as_wide_as_its_parts(folder: Path) -> None:
    write_font(folder / "Cjk Sans.ttf", CAT)
    sheet = Image.new("RGB", (200, 40))
    lettering = fonts.Lettering(ImageDraw.Draw(sheet), [CAT], 20)
    assert lettering.width(f"a{CAT}b") == pytest.approx(lettering.width("a") + 20 + lettering.width("b"))
    assert lettering.shorten(CAT * 5, 61) == f"{CAT * 2}…"
    lettering.write((190, 5), f"a{CAT}", fill=(255, 255, 255), align="r")
    box = sheet.getbbox()
    assert box is not None
    assert box[0] == pytest.approx(190 - lettering.width(f"a{CAT}"), abs=2)
    assert box[2] <= 190


def test_each_letter_is_tried_once_and_in_further_fonts_only_if_dejavu_lacks_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_font(folder / "Cjk Sans.ttf", CAT)
    tried: list[tuple[str, str]] = []
    draws = fonts._draws
    monkeypatch.setattr(fonts, "_draws", lambda path, letter: tried.append((path.name, letter)) or draws(path, letter))
    predicted("cat", "dog", "bird")
    assert tried == []
    for _ in range(3):
        predicted("cat", "Ä", CAT)
    names = ["DejaVuSans.ttf", "Cjk Sans.ttf"]
    further = [(name, letter) for letter in (CAT,) for name in names]
    assert [item for item in tried if not item[1].isascii()] == [("DejaVuSans.ttf", "Ä"), *further]
