"""Mutates IDX, gzip, NPZ and CSV files and archives of images at random and has them read: ``make fuzz MINUTES=10``.
It prints its seed.

Whatever the bytes are, the readers give arrays or one of their own errors, take little memory, and come to an end.
A plain mutator, since coverage-guided fuzzers for Python come without wheels for most versions of it.
"""

from __future__ import annotations

import argparse
import codecs
import contextlib
import gzip
import io
import json
import random
import resource
import shutil
import sys
import tarfile
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from service.datasets.errors import DatasetBroken
from service.datasets.formats.idx import idx_header, read_idx
from service.datasets.importer import DEFAULT_PHOTOS, UploadRefused, as_document, import_dataset
from service.datasets.info import Channels, OnBad, PhotoOptions, TableOptions
from service.datasets.tables.importing import import_table

INTERESTING = (b"\0", b"\xff", b"\x7f", b"\x80", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"PK\1\2")
CELLS = (
    b",",
    b'"',
    b"\n",
    b"\r",
    b";",
    b"\t",
    b"NA",
    b"1e999",
    b"nan",
    b"_",
    b"2024-02-30",
    b"inf",
    b"sep=;\n",
    b"$",
    b"00",
    b"9:05 pm",
    b"\xc3\xa5",
    b"\xff\xfe",
)
TEXTS = (
    b"True",
    b"|O",
    b"<f8",
    b"9999999999",
    b"'shape'",
    b"(",
    b"),",
    b"-1",
    b".npy",
    b"../",
    b"\x93NUMPY",
    b"ustar",
    b"IHDR",
    b"IDAT",
    b"PLTE",
)
MAX_GROWTH_BYTES = 100 * 2**20
SLOW_S = 1.0


def seeds() -> list[tuple[str, bytes]]:
    """Files that are as they should be: the field of each, and its bytes."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 5, 4)).astype(np.uint8)
    labels = (np.arange(30) % 3).astype(np.uint8)
    made = [("images", idx_header(images.shape) + images.tobytes()), ("labels", idx_header((30,)) + labels.tobytes())]
    made += [(field, gzip.compress(content)) for field, content in list(made)]
    save: Callable[..., None]
    for save in (np.savez, np.savez_compressed):
        for pixels in (images, images / 255, images.astype(">i4"), images > 99):
            buffer = io.BytesIO()
            save(buffer, images=pixels, labels=labels)
            made.append(("archive", buffer.getvalue()))
    return made + tables() + [("archive", data) for data in _archives()]


def tables() -> list[tuple[str, bytes]]:
    """Tables that are as they should be, in several spellings."""
    rows = (f"{n % 7 or 'NA'},{'Oslo' if n % 3 else 'Å'},2024-01-{n % 28 + 1:02},{'ab'[n % 2]}\n" for n in range(60))
    text = "age,city,since,label\n" + "".join(rows)
    quoted = text.replace("Oslo", '"Os,""lo"').replace("\n", "\r\n")
    european = text.replace(",", ";").replace("\n3;", "\n3,5;")
    made = [text.encode(), codecs.BOM_UTF8 + quoted.encode(), european.encode("cp1252"), text.encode("utf-16")]
    made += [text.replace(",", "\t").encode("latin-1"), text.replace("\n", "\r").encode()]
    lines = text.splitlines()
    parts = ["part", *(("train", "val", "Test ")[n % 3] for n in range(len(lines)))]
    divided = "".join(f"{part},{line}\n" for part, line in zip(parts, lines, strict=False))
    units = (f"{n:03};$1,{n:03}.50;{n % 24}:30;{90071992547409920 + n % 3};\n" for n in range(60))
    made.append(("sep=;\ncode;price;at;label;\n" + "".join(units)).encode())
    return [("table", data) for data in (*made, divided.encode(), gzip.compress(text.encode()))]


def _archives() -> Iterator[bytes]:
    """Archives of images in all formats, in grey and in colour, with parts and without."""
    shades = (Image.linear_gradient("L").resize((9, 7)), Image.radial_gradient("L").resize((9, 7)))
    hues = tuple(
        Image.merge("RGB", (shade, shade.rotate(180), shade.transpose(Image.Transpose.FLIP_LEFT_RIGHT)))
        for shade in shades
    )
    kinds = [("PNG", {}), ("JPEG", {"quality": 80}), ("WEBP", {}), ("BMP", {}), ("GIF", {})]
    for images in (shades, hues):
        for fmt, how in kinds:
            data = [_saved(image, fmt, **how) for image in images]
            name = fmt.lower()
            files = {
                f"{label}/{index}.{name}": one for label, one in zip("ab", data, strict=True) for index in range(7)
            }
            yield _zipped(files, zipfile.ZIP_STORED)
            yield _zipped(
                {f"d/train/{path}": one for path, one in files.items()} | {f"d/val/a/x.{name}": data[0]},
                zipfile.ZIP_DEFLATED,
            )
            tar = _tarred(files, tarfile.GNU_FORMAT if fmt == "PNG" else tarfile.PAX_FORMAT)
            yield tar
            yield gzip.compress(tar)
    exif = Image.Exif()
    exif[0x0112] = 6
    odd = [
        _saved(hues[0], "JPEG", exif=exif),
        _saved(hues[1].convert("CMYK"), "JPEG"),
        _saved(hues[0].quantize(8), "PNG"),
    ]
    odd.append(_saved(hues[0].convert("RGBA"), "PNG", compress_level=0))
    yield _zipped({f"{'ab'[n % 2]}/{n}.png": odd[n % 4] for n in range(16)}, zipfile.ZIP_STORED)


def _saved(image: Image.Image, fmt: str, **how: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, fmt, **how)
    return file.getvalue()


def _zipped(files: dict[str, bytes], method: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def _tarred(files: dict[str, bytes], fmt: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=fmt) as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def options_of(field: str, data: bytes) -> list[PhotoOptions]:
    """How an archive may be read; of arrays there is one way."""
    if field != "archive" or b".npy" in data:
        return [DEFAULT_PHOTOS]
    return [
        DEFAULT_PHOTOS,
        PhotoOptions(size=(4, 5), channels=Channels.COLOUR),
        PhotoOptions(size=(4, 5), on_bad=OnBad.SKIP),
        PhotoOptions(channels=Channels.GREY, on_bad=OnBad.SKIP),
    ]


def mutate(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(len(changed) + 1) if changed else 0
        match rng.randrange(6):
            case 0 if changed:
                changed[at - 1] ^= 1 << rng.randrange(8)
            case 1:
                piece = rng.choice(INTERESTING + TEXTS + CELLS)
                changed[at : at + len(piece)] = piece
            case 2:
                changed[at:at] = rng.choice(INTERESTING + TEXTS + CELLS)
            case 3:
                del changed[at : at + rng.randrange(1, 40)]
            case 4:
                changed[at:at] = changed[at : at + rng.randrange(1, 200)]
            case _:
                changed[at : at + rng.randrange(1, 9)] = rng.randbytes(rng.randrange(1, 9))
    return bytes(changed)


def read(folder: Path, field: str, data: bytes, good: dict[str, bytes], options: PhotoOptions = DEFAULT_PHOTOS) -> str:
    """What came of it; whatever else is raised passes through."""
    path = folder / field
    path.write_bytes(data)
    if field == "table":
        return read_table(folder, path)
    if field != "archive":
        with contextlib.suppress(DatasetBroken):
            read_idx(path)
    files = {field: path}
    if field != "archive":
        other = "labels" if field == "images" else "images"
        (folder / other).write_bytes(good[other])
        files[other] = folder / other
    arrays = folder / "arrays"
    arrays.mkdir()
    try:
        imported = import_dataset(files, arrays, fraction=None, photos=options)
    except UploadRefused as error:
        str(error).encode()  # as an answer has to
        return "refused"
    else:
        json.dumps(as_document(imported), ensure_ascii=False).encode()
        return "imported"
    finally:
        for file in arrays.iterdir():
            file.unlink()
        arrays.rmdir()


def read_table(folder: Path, path: Path) -> str:
    arrays = folder / "arrays"
    arrays.mkdir()
    options = TableOptions(split="part") if b"part" in path.read_bytes()[:100] else TableOptions()
    try:
        import_table(path, arrays, fraction=None, options=options)
    except UploadRefused:
        return "refused"
    else:
        return "imported"
    finally:
        shutil.rmtree(arrays)


def main() -> int:
    """Fuzz for some minutes; the exit code says whether something was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--only", help="mutate the files of one field, such as table")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    rng, corpus, came = random.Random(options.seed), seeds(), Counter[str]()
    good = dict(corpus[:2])
    deadline, slowest = time.monotonic() + 60 * options.minutes, 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for field, data in corpus:
            assert read(folder, field, data, good, options_of(field, data)[-2:][0]) == "imported", field
        corpus = [seed for seed in corpus if options.only in (None, seed[0])]
        began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        while time.monotonic() < deadline:
            field, data = rng.choice(corpus)
            changed = mutate(rng, data)
            start = time.process_time()
            try:
                came[read(folder, field, changed, good, rng.choice(options_of(field, changed)))] += 1
            except BaseException:
                found = Path(tempfile.mkdtemp(prefix="tapeline-fuzz-")) / f"{field}.bin"
                found.write_bytes(changed)
                print(f"found with {field}; the file is {found}", file=sys.stderr)
                raise
            slowest = max(slowest, time.process_time() - start)
            if came.total() % 500 == 0 and len(corpus) < 400:  # from changed files, too
                corpus.append((field, changed[:20_000]))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - began) * (1024 if sys.platform == "linux" else 1)
    print(f"{came.total():,} files: {dict(came)}; slowest {slowest:.3f} s, memory grew {grown / 2**20:.1f} MiB")
    return int(slowest > SLOW_S or grown > MAX_GROWTH_BYTES)


if __name__ == "__main__":
    sys.exit(main())
