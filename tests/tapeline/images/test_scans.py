from __future__ import annotations

import io
import struct

import pytest
from PIL import Image

from tapeline.errors import UnreadableImage
from tapeline.images import decoding
from tapeline.images.decoding import open_image, pixels_of
from tests.security.slow_inputs import EMPTY_SCAN, jpeg


def segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content


def with_segments(data: bytes, *segments: bytes) -> bytes:
    """A JPEG with further segments after its first marker."""
    return data[:2] + b"".join(segments) + data[2:]


def encoded(**options: object) -> bytes:
    noise = Image.effect_noise((64, 48), 90).convert("RGB")
    file = io.BytesIO()
    noise.save(file, "JPEG", **options)
    return file.getvalue()


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 100, "restart_marker_blocks": 1}])
def test_photos_are_read(options: dict[str, object]) -> None:
    with open_image(io.BytesIO(encoded(**options))) as image:
        assert pixels_of(image, (8, 8), grey=False).size == (8, 8)


def test_a_jpeg_with_the_most_scans_is_decoded_and_with_one_more_refused() -> None:
    with open_image(io.BytesIO(jpeg(decoding.MAX_SCANS))) as image:
        assert pixels_of(image, None, grey=True).getpixel((0, 0)) == 90
    with (
        pytest.raises(UnreadableImage, match="more than 100 scans; save it again, as a JPEG that is not progressive"),
        open_image(io.BytesIO(jpeg(decoding.MAX_SCANS + 1))),
    ):
        pass


def test_scans_are_counted_after_others_like_those_that_a_decoder_finds() -> None:
    """Between scans, decoders skip what is no marker, and fill bytes before one."""
    data = jpeg(90)[:-2]
    scan = EMPTY_SCAN
    assert not decoding.jpeg_refusal(data + 10 * scan)
    for separator in (b"", b"\xff", b"\xff\xff\xff", b"\0garbage\xff\0", b"\xff\xd3", b"\xff\x01", b"\xff\0\xda"):
        assert "100 scans" in decoding.jpeg_refusal(data + 11 * (separator + scan)), separator


def test_what_only_looks_like_a_scan_is_not_counted() -> None:
    lookalikes = 200 * EMPTY_SCAN
    comment, thumbnail = segment(0xFE, lookalikes), segment(0xE1, b"Exif\0\0" + lookalikes)
    stuffed = lookalikes.replace(b"\xff", b"\xff\0")
    data = with_segments(jpeg(10), comment, thumbnail)
    assert not decoding.jpeg_refusal(data + lookalikes), "after the end"
    assert not decoding.jpeg_refusal(data[:-2] + stuffed + b"\xff\xd9")
    with open_image(io.BytesIO(data)) as image:
        assert pixels_of(image, None, grey=True).getpixel((0, 0)) == 90


def test_a_jpeg_of_segments_is_not_looked_through() -> None:
    data = with_segments(jpeg(10), *[segment(0xFE, b"")] * (decoding.MAX_SEGMENTS + 1))
    assert "more than 10,000 segments" in decoding.jpeg_refusal(data)
    with pytest.raises(UnreadableImage, match="10,000 segments"), open_image(io.BytesIO(data)):
        pass


@pytest.mark.parametrize("length", range(40))
def test_a_truncated_file_is_looked_through_to_its_end(length: int) -> None:
    assert not decoding.jpeg_refusal(jpeg(10)[:length])
