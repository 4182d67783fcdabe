"""Decodes untrusted image files in a separate process with limited memory and time.

``python -m service.datasets.image_sandbox`` is that process, see ``sandbox``. It writes the pixels of all images to a
file that it inherits; its response has the shape or the error of each image. The pixels equal those of an import with
the same options.
"""

from __future__ import annotations

import base64
import io
import json
import math
import os
import sys
import tempfile
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.datasets.sandbox import SandboxFailed, apply_limits, run
from service.datasets.upload_formats import IMAGE_ARCHIVE
from service.image_files.decoding import UnreadableImage, open_image, pixels_of
from service.image_files.sizes import Size

CPU_S: Final = 20
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
    decoded: list[Decoded] = []
    with tempfile.TemporaryFile() as output:
        fd = output.fileno()
        try:
            response = run("service.datasets.image_sandbox", request | {"output": fd}, cpu_s=CPU_S, pass_fds=[fd])
        except SandboxFailed:
            return [UnreadableImage(_TOO_MUCH)] * len(files)
        offset = 0
        for entry in response["images"]:
            if "fault" in entry:
                decoded.append(UnreadableImage(entry["fault"]))
            else:
                shape = tuple(entry["shape"])
                decoded.append(np.memmap(output, np.uint8, "r", offset, shape))
                offset += math.prod(shape)
    return decoded


def main() -> None:
    """Read one request from standard input, decode the images, and write the response to standard output."""
    request = json.load(sys.stdin)
    apply_limits(CPU_S, IMAGE_ARCHIVE.memory_bytes)
    cover = tuple(request["cover"]) if request["cover"] else None
    responses: list[dict[str, Any]] = []
    remaining_pixels = request["max_pixels"]
    with os.fdopen(request["output"], "wb") as output:
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
                output.write(pixels.tobytes())
    json.dump({"images": responses}, sys.stdout)


if __name__ == "__main__":
    main()
