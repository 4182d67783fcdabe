"""Decodes untrusted image files in a separate process with limited memory and time.

``python -m service.datasets.image_sandbox`` is that process. It reads a request as JSON from standard input. Its
response is a line of JSON with the shape or the error of each image, followed by the pixels of all images. The pixels
equal those of an import with the same options.
"""

from __future__ import annotations

import base64
import io
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from service.datasets.sandbox import INHERITED_VARIABLES, PHOTO_MEMORY_BYTES, apply_limits
from tapeline.errors import UnreadableImage
from tapeline.images.decoding import open_image, pixels_of
from tapeline.images.files import Size

CPU_S: Final = 20
_WALL_FACTOR: Final = 2
_MODULE: Final = "service.datasets.image_sandbox"
_TOO_MUCH: Final = "cannot be decoded within the limits on memory and time: scale it down"

Decoded = NDArray[np.uint8] | UnreadableImage


def decode_in_sandbox(files: Sequence[bytes], *, cover: Size | None, grey: bool, max_pixels: int) -> list[Decoded]:
    """The pixels of image files, (rows, columns) or (rows, columns, 3), or the reason why there are none.

    Args:
        cover: scale each image to cover this size, and centre-crop it.
        max_pixels: maximum number of pixels of all images together.
    """
    request = {
        "files": [base64.b64encode(data).decode() for data in files],
        "cover": cover,
        "grey": grey,
        "max_pixels": max_pixels,
    }
    environ = {name: os.environ[name] for name in INHERITED_VARIABLES if name in os.environ} | {
        "OPENBLAS_NUM_THREADS": "1"
    }
    with tempfile.TemporaryFile() as output:  # from a pipe, the pixels would be read in pieces, which take memory
        try:
            completed = subprocess.run(
                [sys.executable, "-m", _MODULE],
                input=json.dumps(request).encode(),
                stdout=output,
                stderr=subprocess.PIPE,
                env=environ,
                timeout=_WALL_FACTOR * CPU_S,
                check=False,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            return [UnreadableImage(_TOO_MUCH)] * len(files)
        if completed.returncode == 0:
            return _read_response(output)
    log_text = completed.stderr.decode("utf-8", "replace")[-2000:]
    import structlog  # only here: it loads Rich, which takes a third of the start of the process

    structlog.get_logger("tapeline.web").error("images could not be decoded", code=completed.returncode, said=log_text)
    return [UnreadableImage(_TOO_MUCH)] * len(files)


def _read_response(output: IO[bytes]) -> list[Decoded]:
    output.seek(0)
    head = output.readline()
    offset = len(head)
    decoded: list[Decoded] = []
    for entry in json.loads(head):
        if "fault" in entry:
            decoded.append(UnreadableImage(entry["fault"]))
        else:
            shape = tuple(entry["shape"])
            decoded.append(np.memmap(output, np.uint8, "r", offset, shape))
            offset += math.prod(shape)
    return decoded


def main() -> int:
    """Read one request from standard input, decode the images, and write the response to standard output."""
    request = json.load(sys.stdin)
    apply_limits(CPU_S, PHOTO_MEMORY_BYTES)
    cover = tuple(request["cover"]) if request["cover"] else None
    responses: list[dict[str, Any]] = []
    pixel_data: list[bytes] = []
    remaining_pixels = request["max_pixels"]
    for text in request["files"]:
        try:
            with open_image(io.BytesIO(base64.b64decode(text))) as image:
                remaining_pixels -= image.width * image.height
                if remaining_pixels < 0:
                    limit_hint = f"at most {request['max_pixels']:,} are read in one request"
                    raise UnreadableImage(f"has too many pixels, together with the images before it; {limit_hint}")
                pixels = np.asarray(pixels_of(image, cover, grey=request["grey"]))
        except UnreadableImage as error:
            responses.append({"fault": str(error)})
        else:
            responses.append({"shape": pixels.shape})
            pixel_data.append(pixels.tobytes())
    sys.stdout.buffer.write(json.dumps(responses).encode() + b"\n" + b"".join(pixel_data))
    return 0


if __name__ == "__main__":
    sys.exit(main())
