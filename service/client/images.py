"""Conversion of images for requests: small files are sent unchanged, others as PNGs."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from service.client.errors import UnreadableImage

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS: Final = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
"""The supported formats; Pillow's other decoders would enlarge the attack surface."""
MAX_FILE_BYTES: Final = 64 * 1024 * 1024
MAX_PIXELS: Final = 80_000_000
SENT_SIDE: Final = 256
"""Larger images are scaled down to this side length before they are sent: networks use a few dozen pixels a side."""
_SENT_AS_IT_IS_BYTES: Final = 200_000
_REQUEST_CHARACTERS: Final = 900_000
"""Maximum base64 characters per request, whose body is limited to 1 MiB."""
_REQUEST_IMAGES: Final = 256
_PNG: Final = b"\x89PNG\r\n\x1a\n"


def encoded(image: Path | bytes | Sequence[Any]) -> Any:
    """An image in the form of a request: a file in base64, or unchanged rows of numbers.

    Files of up to 200 kB are sent unchanged, so that the service decodes them in the same way as those of a dataset.

    Raises:
        UnreadableImage: the bytes are not an image of ``FORMATS``, or broken, or too large.
        OSError: the file cannot be read.
    """
    if isinstance(image, Path):
        if image.stat().st_size > MAX_FILE_BYTES:
            raise UnreadableImage(f"{image} is larger than {MAX_FILE_BYTES >> 20} MiB")
        return _of_bytes(image.read_bytes(), name=str(image))
    if isinstance(image, bytes):
        return _of_bytes(image)
    return image


def _of_bytes(data: bytes, name: str = "the image") -> str:
    png = as_png(data, name=name)  # also for a file that is sent unchanged, to detect a broken one
    return base64.b64encode(data if len(data) <= _SENT_AS_IT_IS_BYTES else png).decode()


def in_requests(images: Sequence[Any]) -> Iterator[list[Any]]:
    """Split images into as few requests as possible, at least one."""
    part: list[Any] = []
    size = 0
    for image in images:
        each = len(image) if isinstance(image, str) else 0
        if part and (size + each > _REQUEST_CHARACTERS or len(part) == _REQUEST_IMAGES):
            yield part
            part, size = [], 0
        part.append(image)
        size += each
    yield part


def as_png(data: bytes, *, name: str = "the image") -> bytes:
    """An image of ``FORMATS`` as a PNG of at most ``SENT_SIDE`` pixels along a side, upright as its EXIF data says.

    A small PNG is unchanged. Of an animation, the first frame is used.
    """
    if data.startswith(_PNG) and len(data) <= _SENT_AS_IT_IS_BYTES:
        return data
    # Imported lazily: it takes a tenth of a second, and most commands do not need it.
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is checked below
            opened = Image.open(io.BytesIO(data), formats=FORMATS)
        with opened:
            if opened.width * opened.height > MAX_PIXELS:
                pixels = f"{opened.width:,} x {opened.height:,} pixels"
                raise UnreadableImage(f"{name} has {pixels}; at most {MAX_PIXELS:,} are read")
            opened.draft(None, (2 * SENT_SIDE, 2 * SENT_SIDE))  # a JPEG is scaled down while it is decoded
            upright = ImageOps.exif_transpose(opened)
            converted = _plain(upright)
            converted.thumbnail((SENT_SIDE, SENT_SIDE), Image.Resampling.BOX, reducing_gap=None)
            file = io.BytesIO()
            converted.save(file, "PNG")
            return file.getvalue()
    except UnreadableImage:
        raise
    except Image.DecompressionBombError:
        raise UnreadableImage(f"{name} has too many pixels; at most {MAX_PIXELS:,} are read") from None
    except UnidentifiedImageError:
        kinds = "PNG, JPEG, WebP, BMP or GIF"
        raise UnreadableImage(f"{name} is not a supported image ({kinds})") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise UnreadableImage(f"{name} is broken: {error}") from None


def _plain(image: Image) -> Image:
    """Convert to a mode that PNG and the service support, with transparency if the image has it."""
    if image.mode in ("L", "LA", "RGB", "RGBA"):
        return image
    if image.mode.startswith("I"):  # 16 bits, which convert("L") would clip instead of scaling
        return image.convert("I").point(lambda value: value / 256).convert("L")
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image.convert("L" if image.mode == "1" else "RGB")
