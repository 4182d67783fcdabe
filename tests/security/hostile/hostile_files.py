"""Hostile files, generated on the fly: the fields of one upload, and the expected result."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

Upload = Mapping[str, bytes]

RNG = np.random.default_rng(1)
IMAGES = RNG.integers(0, 256, (60, 6, 5)).astype(np.uint8)
LABELS = (np.arange(60) % 3).astype(np.uint8)


def idx(*sizes: int, data: bytes = b"", kind: int = 8, dimensions: int | None = None) -> bytes:
    count = len(sizes) if dimensions is None else dimensions
    return bytes([0, 0, kind, count]) + struct.pack(f">{len(sizes)}I", *sizes) + data


GOOD_IMAGES = idx(60, 6, 5, data=IMAGES.tobytes())
GOOD_LABELS = idx(60, data=LABELS.tobytes())


def npy(shape: str, descr: str = "'|u1'", data: bytes = b"", *, version: int = 1, length: int | None = None) -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    size = struct.pack("<H" if version == 1 else "<I", len(text) if length is None else length)
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + data


def archive(
    members: Mapping[str, bytes], *, method: int = zipfile.ZIP_DEFLATED, alter: Callable[[zipfile.ZipInfo], Any] = id
) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, data in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            alter(info)
            file.writestr(info, data)
    return buffer.getvalue()


GOOD_MEMBERS = {
    "images.npy": npy("(60, 6, 5)", data=IMAGES.tobytes()),
    "labels.npy": npy("(60,)", data=LABELS.tobytes()),
}


def with_member(name: str, data: bytes) -> Upload:
    return {"archive": archive({**GOOD_MEMBERS, name: data})}


def patched(data: bytes, before: bytes, after: bytes, *, last: bool = False) -> bytes:
    at = data.rindex(before) if last else data.index(before)
    return data[:at] + after + data[at + len(before) :]


def patch_directory_entry(data: bytes, offset: int, value: bytes) -> bytes:
    """Overwrite bytes in the first entry of an archive's central directory."""
    at = data.index(b"PK\x01\x02") + offset
    return data[:at] + value + data[at + len(value) :]


def idx_upload(images: bytes = GOOD_IMAGES, labels: bytes = GOOD_LABELS) -> Upload:
    return {"images": images, "labels": labels}


def hostile() -> Iterator[tuple[str, Upload]]:
    """Yield each upload that must be refused, with a title for the report."""
    good = archive(GOOD_MEMBERS)
    # Bombs.
    zeros = bytes(2**20)
    bomb = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = b"".join(
        [bomb.compress(idx(300_000_000, 1, 1)), *(bomb.compress(zeros) for _ in range(280)), bomb.flush()]
    )
    yield "gzip that unpacks to 280 MB behind a header", idx_upload(images=packed)
    yield "gzip of zeros for a small header", idx_upload(images=gzip.compress(GOOD_IMAGES + bytes(64 * 2**20)))
    yield "gzip in gzip", idx_upload(images=gzip.compress(gzip.compress(GOOD_IMAGES)))
    yield "gzip with a name of 16 MB", idx_upload(images=b"\x1f\x8b\x08\x08" + bytes(6) + b"a" * 16 * 2**20)
    yield "gzip of a million empty members", idx_upload(images=gzip.compress(b"") * 400_000)
    yield "gzip without an end", idx_upload(images=gzip.compress(GOOD_IMAGES)[:-9])
    yield (
        "gzip with another checksum",
        idx_upload(images=gzip.compress(GOOD_IMAGES)[:-8] + b"\0\0\0\0" + struct.pack("<I", 1)),
    )
    yield "zip of 100 MB of zeros", with_member("x_test.npy", npy("(100, 1000, 1000)", data=bytes(100 * 2**20)))
    yield "zip in zip", with_member("inner.zip", good)
    yield "zip with 200 members", {"archive": archive({f"a{n}.npy": b"x" for n in range(200)})}
    yield "zip that says 65,535 members", {"archive": good[:-14] + b"\xff\xff\xff\xff" + good[-10:]}
    yield "zip with a directory beyond its end", {"archive": good[:-10] + b"\xff\xff\xff\x7f" + good[-6:]}
    overlap = patch_directory_entry(good, 24, struct.pack("<I", 2**31))
    yield "zip whose directory promises 2 GB", {"archive": overlap}
    yield "zip whose directory promises too little", {"archive": patch_directory_entry(good, 24, struct.pack("<I", 10))}
    yield "zip with another checksum", {"archive": patch_directory_entry(good, 16, b"\1\2\3\4")}
    yield "zip with a comment", {"archive": good[:-2] + b"\x05\0hello"}
    yield "zip behind a program", {"archive": b"MZ" + bytes(1000) + good}
    # Names.
    for name in ("../../../etc/cron.d/x.npy", "/etc/passwd", "a/b.npy", "C:\\x.npy", "..", "-rf.npy", "é.npy"):
        yield f"zip member {name!a}", with_member(name, GOOD_MEMBERS["labels.npy"])
    yield "zip member with a NUL", {"archive": good.replace(b"labels.npy", b"labels\0npy")}
    yield "zip member with a name of 60,000 letters", with_member("a" * 60_000 + ".npy", b"")
    yield "zip with the same member twice", {"archive": good.replace(b"labels.npy", b"images.npy")}
    yield "zip member that is a link", with_member("link", b"/etc/passwd")
    # Compression and encryption.
    yield "zip packed with lzma", {"archive": archive(GOOD_MEMBERS, method=zipfile.ZIP_LZMA)}
    yield "zip packed with bzip2", {"archive": archive(GOOD_MEMBERS, method=zipfile.ZIP_BZIP2)}
    yield "zip that is encrypted", {"archive": patch_directory_entry(good, 8, b"\x01\0")}
    yield "zip packed in an unknown way", {"archive": patch_directory_entry(good, 10, b"\x63\0")}
    # Array headers.
    yield "array of 10**12 floats", with_member("x_test.npy", npy("(1000000000000,)", "'<f4'"))
    yield "array whose size overflows", with_member("x_test.npy", npy("(4611686018427387904, 4)"))
    yield "array with a negative side", with_member("x_test.npy", npy("(-1, 6, 5)"))
    yield "array with 40 dimensions", with_member("x_test.npy", npy(f"({'1,' * 40})"))
    yield "array of objects", with_member("x_test.npy", npy("(1,)", "'|O'", b"cos\nsystem\n(S'id'\ntR."))
    yield "array of records", with_member("x_test.npy", npy("(1,)", "[('a', '<i4')]", bytes(4)))
    yield "array with code for a shape", with_member("x_test.npy", npy("__import__('os').system('id')"))
    yield "array with nested brackets", with_member("x_test.npy", npy("(" * 1000 + ")" * 1000))
    yield "array with a header of 2 GB", with_member("x_test.npy", npy("(1,)", version=2, length=2**31 - 1))
    yield "array of long doubles", with_member("x_test.npy", npy("(1, 1, 1)", "'<f16'", bytes(16)))
    yield "array of complex numbers", with_member("x_test.npy", npy("(1, 1, 1)", "'<c8'", bytes(8)))
    yield "array of text", with_member("x_test.npy", npy("(1, 1, 1)", "'<U8'", bytes(32)))
    yield "array shorter than it says", with_member("x_test.npy", npy("(60, 6, 5)", data=b"x"))
    yield "array longer than it says", with_member("x_test.npy", npy("(1, 1, 1)", data=bytes(100)))
    yield "pickle instead of an archive", {"archive": b"\x80\x04\x95\x00cos\nsystem\n."}
    # IDX.
    yield "IDX that promises 2**96 bytes", idx_upload(images=idx(2**32 - 1, 2**32 - 1, 2**32 - 1))
    yield "IDX with zeros in a huge shape", idx_upload(images=idx(0, 2**32 - 1, 2**32 - 1))
    yield "IDX with 255 dimensions", idx_upload(images=idx(60, 6, 5, dimensions=255, data=IMAGES.tobytes()))
    yield "IDX of doubles", idx_upload(images=idx(60, 6, 5, kind=0x0E, data=IMAGES.tobytes()))
    yield "IDX cut short", idx_upload(images=GOOD_IMAGES[:-1])
    yield "IDX that goes on", idx_upload(images=GOOD_IMAGES + b"x")
    yield "IDX of one byte", idx_upload(images=b"\0")
    yield "nothing at all", idx_upload(images=b"", labels=b"")
    yield "labels and images swapped", idx_upload(GOOD_LABELS, GOOD_IMAGES)
    # Values.
    for title, pixels in (
        ("NaN", np.full((60, 6, 5), np.nan)),
        ("infinity", np.full((60, 6, 5), np.inf, "<f4")),
        ("pixels of 1e300", np.full((60, 6, 5), 1e300)),
        ("pixels below zero", np.full((60, 6, 5), -1, "<i8")),
    ):
        data = npy("(60, 6, 5)", f"'{pixels.dtype.str}'", pixels.tobytes())
        yield title, {"archive": archive({**GOOD_MEMBERS, "images.npy": data})}
    for value in (-1, 256, 2**62):
        data = npy("(60,)", "'<i8'", np.full(60, value, "<i8").tobytes())
        yield f"the label {value}", {"archive": archive({**GOOD_MEMBERS, "labels.npy": data})}
    yield "a boolean that is 7", with_member("x_test.npy", npy("(60, 6, 5)", "'|b1'", bytes([7]) * 1800))
