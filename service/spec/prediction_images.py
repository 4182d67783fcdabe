"""The image files that the client and the page send to the service, and which of them they send unchanged.

Other files are scaled down before they are sent, by Pillow or by the browser, whose pixels differ in the last bits.
"""

from __future__ import annotations

from typing import Final

IMAGE_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".jpe", ".webp", ".bmp", ".gif")
"""The suffixes of image files in folders and archives, in lower case."""
UNSEEN_FILES: Final = ("thumbs.db", "desktop.ini")
"""Names in lower case of files that file managers leave in folders."""
SENT_UNCHANGED_BYTES: Final = 700_000
"""Maximum size of a file that is sent unchanged: in base64, it fits into the body of a request."""
SENT_UNCHANGED_PIXELS: Final = 2**24
"""Maximum number of pixels of such a file, and of all files of one request."""
MAX_SIDE: Final = 2048
"""Maximum width and height of a PNG, or of rows of numbers, in pixels."""
SENT_SIDE: Final = 384
"""Other images are scaled down to this side length: networks use a few dozen pixels a side."""


def is_sent_unchanged(size_bytes: int, width: int, height: int, *, is_png: bool) -> bool:
    """Whether a file of this size is sent unchanged. The page's ``draw.js`` decides in the same way."""
    is_small = size_bytes <= SENT_UNCHANGED_BYTES and width * height <= SENT_UNCHANGED_PIXELS
    return is_small and (not is_png or max(width, height) <= MAX_SIDE)
