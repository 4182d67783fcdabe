"""Mutates IDX, gzip, NPZ and CSV files and image archives at random and reads them: ``make fuzz MINUTES=10``.
It prints its seed.

For any input, the readers must return arrays or raise one of their own errors, use little memory, and
terminate. This is a plain mutator: coverage-guided fuzzers have no wheels for most versions of Python.
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
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from service.datasets.errors import DatasetBroken
from service.datasets.formats.idx import idx_header, read_idx
from service.datasets.formats.options import Channels, OnBad, PhotoOptions, TableOptions
from service.datasets.importer import DEFAULT_PHOTOS, UploadRefused, import_dataset
from service.datasets.tables.importing import import_table

INTERESTING_BYTES = (b"\0", b"\xff", b"\x7f", b"\x80", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"PK\1\2")
CELL_TOKENS = (
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
FORMAT_TOKENS = (
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
MAX_READ_S = 1.0


def seed_files() -> list[tuple[str, bytes]]:
    """Valid files, each with the name of its form field."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 5, 4)).astype(np.uint8)
    labels = (np.arange(30) % 3).astype(np.uint8)
    files = [("images", idx_header(images.shape) + images.tobytes()), ("labels", idx_header((30,)) + labels.tobytes())]
    files += [(field, gzip.compress(content)) for field, content in list(files)]
    save: Callable[..., None]
    for save in (np.savez, np.savez_compressed):
        for pixels in (images, images / 255, images.astype(">i4"), images > 99):
            buffer = io.BytesIO()
            save(buffer, images=pixels, labels=labels)
            files.append(("archive", buffer.getvalue()))
    return files + seed_tables() + [("archive", data) for data in _archives()]


def seed_tables() -> list[tuple[str, bytes]]:
    """Valid tables in several dialects and encodings."""
    rows = (f"{n % 7 or 'NA'},{'Oslo' if n % 3 else 'Å'},2024-01-{n % 28 + 1:02},{'ab'[n % 2]}\n" for n in range(60))
    text = "age,city,since,label\n" + "".join(rows)
    quoted = text.replace("Oslo", '"Os,""lo"').replace("\n", "\r\n")
    european = text.replace(",", ";").replace("\n3;", "\n3,5;")
    files = [text.encode(), codecs.BOM_UTF8 + quoted.encode(), european.encode("cp1252"), text.encode("utf-16")]
    files += [text.replace(",", "\t").encode("latin-1"), text.replace("\n", "\r").encode()]
    lines = text.splitlines()
    part_column = ["part", *(("train", "val", "Test ")[n % 3] for n in range(len(lines)))]
    with_parts = "".join(f"{part},{line}\n" for part, line in zip(part_column, lines, strict=False))
    unit_rows = (f"{n:03};$1,{n:03}.50;{n % 24}:30;{90071992547409920 + n % 3};\n" for n in range(60))
    files.append(("sep=;\ncode;price;at;label;\n" + "".join(unit_rows)).encode())
    return [("table", data) for data in (*files, with_parts.encode(), gzip.compress(text.encode()))]


def _archives() -> Iterator[bytes]:
    """Image archives in all formats, in grey and in colour, with and without parts."""
    shades = (Image.linear_gradient("L").resize((9, 7)), Image.radial_gradient("L").resize((9, 7)))
    hues = tuple(
        Image.merge("RGB", (shade, shade.rotate(180), shade.transpose(Image.Transpose.FLIP_LEFT_RIGHT)))
        for shade in shades
    )
    kinds = [("PNG", {}), ("JPEG", {"quality": 80}), ("WEBP", {}), ("BMP", {}), ("GIF", {})]
    for images in (shades, hues):
        for fmt, options in kinds:
            data = [_encoded(image, fmt, **options) for image in images]
            name = fmt.lower()
            files = {
                f"{label}/{index}.{name}": content
                for label, content in zip("ab", data, strict=True)
                for index in range(7)
            }
            yield _zipped(files, zipfile.ZIP_STORED)
            yield _zipped(
                {f"d/train/{path}": content for path, content in files.items()} | {f"d/val/a/x.{name}": data[0]},
                zipfile.ZIP_DEFLATED,
            )
            tar = _tarred(files, tarfile.GNU_FORMAT if fmt == "PNG" else tarfile.PAX_FORMAT)
            yield tar
            yield gzip.compress(tar)
    exif = Image.Exif()
    exif[0x0112] = 6
    unusual = [
        _encoded(hues[0], "JPEG", exif=exif),
        _encoded(hues[1].convert("CMYK"), "JPEG"),
        _encoded(hues[0].quantize(8), "PNG"),
    ]
    unusual.append(_encoded(hues[0].convert("RGBA"), "PNG", compress_level=0))
    yield _zipped({f"{'ab'[n % 2]}/{n}.png": unusual[n % 4] for n in range(16)}, zipfile.ZIP_STORED)


def _encoded(image: Image.Image, fmt: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, fmt, **options)
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
    """The options to read an image archive with; arrays have only one."""
    if field != "archive" or b".npy" in data:
        return [DEFAULT_PHOTOS]
    return [
        DEFAULT_PHOTOS,
        PhotoOptions(size=(4, 5), channels=Channels.COLOUR),
        PhotoOptions(size=(4, 5), on_bad=OnBad.SKIP),
        PhotoOptions(channels=Channels.GREY, on_bad=OnBad.SKIP),
    ]


def mutate(rng: random.Random, data: bytes) -> bytes:
    mutated = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        position = rng.randrange(len(mutated) + 1) if mutated else 0
        match rng.randrange(6):
            case 0 if mutated:
                mutated[position - 1] ^= 1 << rng.randrange(8)
            case 1:
                token = rng.choice(INTERESTING_BYTES + FORMAT_TOKENS + CELL_TOKENS)
                mutated[position : position + len(token)] = token
            case 2:
                mutated[position:position] = rng.choice(INTERESTING_BYTES + FORMAT_TOKENS + CELL_TOKENS)
            case 3:
                del mutated[position : position + rng.randrange(1, 40)]
            case 4:
                mutated[position:position] = mutated[position : position + rng.randrange(1, 200)]
            case _:
                mutated[position : position + rng.randrange(1, 9)] = rng.randbytes(rng.randrange(1, 9))
    return bytes(mutated)


def import_file(
    folder: Path, field: str, data: bytes, valid: dict[str, bytes], options: PhotoOptions = DEFAULT_PHOTOS
) -> str:
    """Read a file; return ``imported`` or ``refused``. All other exceptions propagate."""
    path = folder / field
    path.write_bytes(data)
    if field == "table":
        return read_table(folder, path)
    if field != "archive":
        with contextlib.suppress(DatasetBroken):
            read_idx(path)
    files = {field: path}
    if field != "archive":
        other_field = "labels" if field == "images" else "images"
        (folder / other_field).write_bytes(valid[other_field])
        files[other_field] = folder / other_field
    arrays = folder / "arrays"
    arrays.mkdir()
    try:
        imported = import_dataset(files, arrays, fraction=None, photos=options)
    except UploadRefused as error:
        str(error).encode()  # as for a response
        return "refused"
    else:
        json.dumps(asdict(imported), ensure_ascii=False).encode()
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
    """Fuzz for some minutes; the exit code is 1 if a file took too long or memory grew too much."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--only", help="mutate the files of one field, such as table")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    rng, corpus, outcomes = random.Random(options.seed), seed_files(), Counter[str]()
    valid = dict(corpus[:2])
    deadline, slowest = time.monotonic() + 60 * options.minutes, 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for field, data in corpus:
            assert import_file(folder, field, data, valid, options_of(field, data)[-2:][0]) == "imported", field
        corpus = [seed for seed in corpus if options.only in (None, seed[0])]
        initial_peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        while time.monotonic() < deadline:
            field, data = rng.choice(corpus)
            mutated = mutate(rng, data)
            start = time.process_time()
            try:
                outcomes[import_file(folder, field, mutated, valid, rng.choice(options_of(field, mutated)))] += 1
            except BaseException:
                failing_file = Path(tempfile.mkdtemp(prefix="tapeline-fuzz-")) / f"{field}.bin"
                failing_file.write_bytes(mutated)
                print(f"found with {field}; the file is {failing_file}", file=sys.stderr)
                raise
            slowest = max(slowest, time.process_time() - start)
            if outcomes.total() % 500 == 0 and len(corpus) < 400:  # mutate mutated files, too
                corpus.append((field, mutated[:20_000]))
    growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - initial_peak) * (
        1024 if sys.platform == "linux" else 1
    )
    print(
        f"{outcomes.total():,} files: {dict(outcomes)}; slowest {slowest:.3f} s, memory grew {growth / 2**20:.1f} MiB"
    )
    return int(slowest > MAX_READ_S or growth > MAX_GROWTH_BYTES)


if __name__ == "__main__":
    sys.exit(main())
