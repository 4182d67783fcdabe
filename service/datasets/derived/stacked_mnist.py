"""Stacked MNIST: three digits as the red, green and blue channels of one image, which makes 1,000 modes.

Metz, Poole, Pfau and Sohl-Dickstein, "Unrolled generative adversarial networks" (2017), section 3.3.1, use such data to
count the modes that a GAN covers. Here, the frequencies of all modes differ by at most one image.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

MODES: Final = 1000
_SEED: Final = int.from_bytes(b"stacked")


def stack(
    images: NDArray[np.uint8], labels: NDArray[Any], count: int, *, part: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """``count`` images (count, rows, columns, 3) of digits from ``images``, and the digit in red of each.

    Args:
        part: each part gets different images. Uses raw 64-bit random numbers, whose stream NumPy guarantees.
    """
    raw = np.random.SFC64(np.random.SeedSequence([_SEED, part])).random_raw((4, count))
    modes = (np.arange(count) % MODES)[np.argsort(raw[3], kind="stable")]
    digits = np.stack([modes // 100, modes // 10 % 10, modes % 10])
    stacked = np.empty((count, *images.shape[1:], 3), np.uint8)
    for channel, channel_digits in enumerate(digits):
        for digit in range(10):
            indices, of_digit = np.flatnonzero(channel_digits == digit), np.flatnonzero(labels == digit)
            chosen = of_digit[(raw[channel, indices] % np.uint64(len(of_digit))).astype(np.intp)]
            stacked[indices, ..., channel] = images[chosen]
    return stacked, digits[0].astype(np.uint8)
