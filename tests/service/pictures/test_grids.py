import io
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from service.datasets.cache import load
from service.datasets.formats.array_folders import ArrayCache
from service.pictures import animations, fonts, grids

DIGITS = np.random.default_rng(0).integers(0, 256, (64, 28, 28)).astype(np.uint8)
CELL = 28 * 2 + 2


def open_picture(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


def draw_predictions(*arguments: Any, **named: Any) -> Image.Image:
    return open_picture(grids.as_shown(grids.prediction_grid(*arguments, **named)))


def read_film(content: bytes) -> tuple[list[NDArray[np.uint8]], list[int], int]:
    frames, durations = [], []
    with Image.open(io.BytesIO(content)) as film:
        loop = film.info["loop"]
        for index in range(getattr(film, "n_frames", 1)):
            film.seek(index)
            frames.append(np.asarray(film.convert("RGB")))
            durations.append(int(film.info["duration"]))
    return frames, durations, loop


def make_grids(count: int) -> list[bytes]:
    return [grids.sample_grid(np.roll(DIGITS[:4], index, axis=2)) for index in range(count)]


@pytest.mark.parametrize(
    ("count", "columns", "shape"), [(1, None, (1, 1)), (64, None, (8, 8)), (10, None, (4, 3)), (10, 10, (10, 1))]
)
def test_a_grid_is_nearly_square_by_default(count: int, columns: int | None, shape: tuple[int, int]) -> None:
    image = open_picture(grids.sample_grid(DIGITS[:count], columns=columns))
    assert image.size == (shape[0] * CELL + 2, shape[1] * CELL + 2)


def test_images_fill_a_grid_row_by_row() -> None:
    sheet = np.asarray(open_picture(grids.sample_grid(DIGITS[:6], columns=3, scale=1)))
    for index in range(6):
        top, left = 2 + index // 3 * 30, 2 + index % 3 * 30
        np.testing.assert_array_equal(sheet[top : top + 28, left : left + 28], DIGITS[index])


def test_the_same_images_give_the_same_grid() -> None:
    assert grids.sample_grid(DIGITS) == grids.sample_grid(DIGITS.copy())


@pytest.mark.parametrize("shape", [(0, 28, 28), (28, 28), (4, 784)])
def test_arrays_that_are_not_images_are_rejected(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="count, rows, columns"):
        grids.sample_grid(np.zeros(shape, np.uint8))


def test_a_wrong_prediction_is_marked_not_only_by_colour() -> None:
    def draw(prediction: int) -> NDArray[np.uint8]:
        return np.asarray(draw_predictions(DIGITS[:1], [3], [prediction], [0.5]).convert("L"), np.int16)

    difference = np.abs(draw(5) - draw(3)) > 40  # in grey, so not by colour
    assert difference.mean() > 0.03


def test_long_class_names_get_a_second_line() -> None:
    short = draw_predictions(DIGITS[:4], [0] * 4, [1] * 4, [1.0] * 4, class_names=["a", "b"])
    names = ["an extraordinarily long name of a class", "Ankle boot"]
    long = draw_predictions(DIGITS[:4], [0] * 4, [1] * 4, [1.0] * 4, class_names=names)
    assert long.width == short.width
    assert long.height > short.height


@pytest.mark.parametrize("shape", [(7, 8, 8), (5, 6, 9, 3)])
def test_predictions_are_stored_as_images_alone_and_drawn_from_them(shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
    labels = list(range(len(images)))
    stored = grids.prediction_grid(images, labels, labels[::-1], [0.625] * len(images), class_names=list("ábcdefg"))
    assert open_picture(stored).tobytes() == open_picture(grids.sample_grid(images, scale=1)).tobytes()
    shown = np.asarray(open_picture(grids.as_shown(stored)))
    for index, image in enumerate(images):
        row, column = divmod(index, 3)
        top, left = (8 + row * (shape[1] * 3 + 2 * 4 + 20 + 8) + 4, 8 + column * (shape[2] * 3 + 2 * 4 + 8) + 4)
        pixels = shown[top + 1 : top + 3 * shape[1] : 3, left + 1 : left + 3 * shape[2] : 3]
        is_kept = np.ones(shape[1:3], bool)
        is_kept[:7, -7:] = False  # the cross of a wrong prediction
        grey = image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)
        np.testing.assert_array_equal(pixels[is_kept], grey[is_kept])


def test_a_grid_that_is_complete_is_shown_as_it_is() -> None:
    for complete in (grids.sample_grid(DIGITS), grids.as_shown(grids.prediction_grid(DIGITS[:1], [0], [0], [1.0]))):
        assert grids.as_shown(complete) is complete


def test_class_names_are_shortened_to_their_column() -> None:
    stored = grids.prediction_grid(DIGITS[:4], [0] * 4, [1] * 4, [0.5] * 4, class_names=["wwww" * 25, "iiii" * 25])
    drawn, shorter = open_picture(grids.as_shown(stored)), "iiii" * 4
    short = draw_predictions(DIGITS[:4], [0] * 4, [1] * 4, [0.5] * 4, class_names=["wwww" * 25, shorter])
    assert drawn.size == short.size
    assert drawn.tobytes() != short.tobytes()


@pytest.mark.parametrize("text", ["Ankle boot", "wwww" * 25, "αβγδ" * 25, "", "a"])
@pytest.mark.parametrize("max_width", [1, 40, 79.5])
def test_a_shortened_text_is_the_longest_that_fits(text: str, max_width: float) -> None:
    letters = fonts.Lettering(ImageDraw.Draw(Image.new("RGB", (9, 9))), [text], 13)
    shortened = letters.shorten(text, max_width)
    if shortened != text:
        kept = len(shortened) - 1
        assert shortened == text[:kept] + "…"
        assert kept == 0 or letters.width(shortened) <= max_width
        assert letters.width(text[: kept + 1].rstrip() + "…") > max_width or text[kept] == " "
    else:
        assert letters.width(text) <= max_width


def test_a_film_of_predictions_shows_their_captions() -> None:
    stored = grids.prediction_grid(DIGITS[:4], [0] * 4, [1] * 4, [1.0] * 4)
    frames, _, _ = read_film(animations.animate([stored], epochs=[1]))
    assert (np.abs(frames[0].astype(int) - grids.WRONG).max(axis=2) < 8).sum() > 1000  # frames of wrong predictions


def test_the_number_of_labels_must_match_the_number_of_images() -> None:
    with pytest.raises(ValueError, match="4 images with 3 labels"):
        grids.prediction_grid(DIGITS[:4], [1] * 3, [1] * 4, [1.0] * 4)


def test_sample_classes_are_embedded_invisibly_in_their_grid() -> None:
    sample_classes = grids.SampleClasses([index % 10 for index in range(64)], [0.9] * 64)
    plain, labelled = grids.sample_grid(DIGITS), grids.sample_grid(DIGITS, sample_classes=sample_classes)
    assert open_picture(plain).tobytes() == open_picture(labelled).tobytes()
    assert len(labelled) < len(plain) + 1000
    images, embedded = grids._from_grid(labelled)
    np.testing.assert_array_equal(images, DIGITS)
    assert embedded == sample_classes


@pytest.mark.parametrize(("count", "classes"), [(1, 2), (7, 10), (64, 10)])
def test_a_classified_grid_has_its_bar_in_the_column_of_the_predicted_class(count: int, classes: int) -> None:
    sample_classes = grids.SampleClasses([1] * count, [0.99] * count)
    picture = open_picture(
        grids.classified_grid(grids.sample_grid(DIGITS[:count], sample_classes=sample_classes), classes=classes)
    )
    bars = np.abs(np.asarray(picture, np.int16) - grids._BAR).max(axis=2) == 0
    columns = np.flatnonzero(bars.any(axis=0))
    column_width = picture.width / classes
    assert column_width < columns.mean() < 2 * column_width  # all are classified as the second class
    assert np.ptp(columns) < column_width


def test_uncertain_predictions_are_framed() -> None:
    def draw(confidence: float) -> NDArray[np.int16]:
        grid = grids.sample_grid(DIGITS[:1], sample_classes=grids.SampleClasses([3], [confidence]))
        return np.asarray(open_picture(grids.classified_grid(grid, classes=10)), np.int16)

    def count_frame_pixels(picture: NDArray[np.int16]) -> int:
        return int((np.abs(picture - grids.WRONG).max(axis=2) == 0).sum())

    assert count_frame_pixels(draw(0.49)) > count_frame_pixels(draw(0.51)) + 500


def test_a_grid_without_sample_classes_cannot_be_drawn_as_classified() -> None:
    with pytest.raises(grids.NotClassified):
        grids.classified_grid(grids.sample_grid(DIGITS), classes=10)
    with pytest.raises(ValueError, match="64 images with 3 sample_classes"):
        grids.sample_grid(DIGITS, sample_classes=grids.SampleClasses([1] * 3, [0.5] * 3))


def test_a_film_shows_every_grid_and_holds_the_last() -> None:
    pictures = make_grids(20)
    frames, durations, loop = read_film(animations.animate(pictures, epochs=range(1, 21)))
    assert len(frames) == 20
    assert durations == [400] * 19 + [2000]
    assert loop == 0
    first = open_picture(pictures[0])
    assert frames[0].shape[1] == first.width
    shown = frames[0][: first.height].astype(int)
    assert np.abs(shown - np.asarray(first.convert("RGB"))).max() <= 8  # fewer grey levels, but the same picture


def test_a_long_film_is_thinned_but_keeps_its_first_and_last_frame() -> None:
    pictures = make_grids(28)
    many = [pictures[0], *([pictures[1], pictures[2]] * 149), pictures[3]]
    frames, durations, _ = read_film(animations.animate(many, epochs=range(300)))
    assert len(frames) == animations.MAX_FRAMES
    assert 7000 < sum(durations) < 11_000
    ends, _, _ = read_film(animations.animate([pictures[0], pictures[3]], epochs=[0, 299]))
    height = open_picture(pictures[0]).height
    np.testing.assert_array_equal(frames[0][:height], ends[0][:height])
    np.testing.assert_array_equal(frames[-1][:height], ends[-1][:height])


def test_a_webp_film_has_the_pixels_and_times_of_the_gif_in_fewer_bytes() -> None:
    pictures = make_grids(12)
    gif, webp = (animations.animate(pictures, epochs=range(1, 13), fmt=fmt) for fmt in ("gif", "webp"))
    with Image.open(io.BytesIO(webp)) as film:
        assert film.format == "WEBP"
    expected, durations, _ = read_film(gif)
    frames, webp_durations, loop = read_film(webp)
    np.testing.assert_array_equal(frames, expected)
    assert (webp_durations, loop) == (durations, 0)
    assert len(webp) < 0.8 * len(gif)


def test_equal_grids_make_one_frame_each() -> None:
    frames, _, _ = read_film(animations.animate(make_grids(1) * 5, epochs=range(5)))
    assert len(frames) == 5


def test_a_film_of_one_grid_has_one_frame() -> None:
    content = animations.animate(make_grids(1), epochs=[1])
    with Image.open(io.BytesIO(content)) as film:
        assert getattr(film, "n_frames", 1) == 1


def test_a_film_accepts_files_and_grids_of_different_sizes(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(grids.sample_grid(DIGITS[:4]))
    frames, _, _ = read_film(animations.animate([tmp_path / "a.png", grids.sample_grid(DIGITS[:9])], epochs=[1, 2]))
    assert frames[0].shape == frames[1].shape
    assert frames[0].shape[1] == 3 * CELL + 2


def test_a_film_needs_an_epoch_for_each_grid() -> None:
    for pictures, epochs in (([], []), (make_grids(2), [1])):
        with pytest.raises(ValueError, match="grids with"):
            animations.animate(pictures, epochs=epochs)


def test_a_preview_has_a_column_for_each_class(tmp_path: Path) -> None:
    dataset = load("mnist-10k", tmp_path, cache=ArrayCache(tmp_path / ".cache"))
    assert open_picture(grids.preview_png(dataset, per_class=4)).size == (10 * 30 + 2, 4 * 30 + 2)


@pytest.mark.stack
def test_grids_do_not_load_matplotlib() -> None:
    code = "import sys, service.pictures.grids; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("first", "second"), [("Äpfel", "Öpfel"), ("Żur", "Ćur"), ("Жук", "Лук"), ("αρνί", "ορνί")])
def test_non_ascii_letters_are_drawn(first: str, second: str) -> None:
    """All letters missing from a font are drawn as the same box."""

    def predicted(name: str) -> bytes:
        return draw_predictions(DIGITS[:1], [0], [0], [0.9], class_names=[name]).tobytes()

    def classified(name: str) -> bytes:
        png = grids.sample_grid(DIGITS[:1], sample_classes=grids.SampleClasses([0], [0.9]))
        return open_picture(grids.classified_grid(png, classes=2, class_names=[name, "b"])).tobytes()

    for draw in (predicted, classified):
        assert draw(first) != draw(second)
        assert draw(first) == draw(unicodedata.normalize("NFD", first))
