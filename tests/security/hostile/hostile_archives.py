"""Hostile image archives, generated on the fly: the upload, and the words that the error must contain."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator

from PIL import Image

from tests.security.hostile.hostile_files import patch_directory_entry
from tests.security.hostile.image_archives import GOOD, PNG, Hostile, image, special_entry, tarred, with_file, zipped
from tests.security.slow_inputs import zip_of_jpegs


def hostile() -> Iterator[Hostile]:
    yield from _nested()
    yield from _paths()
    yield from _links()
    yield from _names()
    yield from _many()
    yield from _large_images()
    yield from _broken_images()
    yield from _bombs()
    yield from _containers()
    yield from _folders()


def _nested() -> Iterator[Hostile]:
    inner = zipped(GOOD)
    for name, data in (
        ("photos.zip", inner),
        ("photos.tar.gz", gzip.compress(tarred(GOOD))),
        ("photos.7z", b"7z" * 99),
    ):
        mentions = (name, "unpack that")
        yield Hostile(title=f"zip that holds {name}", data=zipped({name: data}), mentions=mentions)
        yield Hostile(title=f"tar that holds {name}", data=tarred({name: data}), mentions=mentions)
    deep = inner
    for level in range(20):
        deep = zipped({f"{level}.zip": deep}, method=zipfile.ZIP_DEFLATED)
    yield Hostile(title="zip in zip, twenty deep", data=deep, mentions=("19.zip", "unpack that"))
    yield Hostile(
        title="zip that is called an image",
        data=zipped(with_file("a/x.png", inner)),
        mentions=("a/x.png", "remove or replace"),
    )
    yield Hostile(
        title="gzip in gzip", data=gzip.compress(gzip.compress(tarred(GOOD))), mentions=("damaged archive", "again")
    )


def _paths() -> Iterator[Hostile]:
    for name in (
        "/etc/cron.d/a.png", "../../a/1.png", "a/../../../b.png", "C:\\Windows\\a.png", "..\\..\\a.png",
        "\\\\host\\share\\a.png",
        "/etc/passwd", "a/../b/c.png",
    ):  # fmt: skip
        escaped = ascii(name)[1:-1].replace("\\\\", "\\")
        mentions = (escaped.rpartition("\\")[2], "paths relative to it")
        yield Hostile(title=f"zip member {name}", data=zipped(with_file(name)), mentions=mentions)
        yield Hostile(title=f"tar member {name}", data=tarred(with_file(name)), mentions=mentions)


def _links() -> Iterator[Hostile]:
    for title, kind, target in (
        ("link out of the archive", tarfile.SYMTYPE, "/etc/passwd"),
        ("link to itself", tarfile.SYMTYPE, "a/x.png"),
        ("hard link", tarfile.LNKTYPE, "a/0.png"),
        ("hard link out of the archive", tarfile.LNKTYPE, "../../etc/shadow"),
    ):
        data = tarred(GOOD, special_entry("a/x.png", kind, target))
        yield Hostile(title=f"tar with a {title}", data=data, mentions=("a/x.png is a link", "pack the file itself"))
    for title, kind in (("device", tarfile.CHRTYPE), ("pipe", tarfile.FIFOTYPE)):
        data = tarred(GOOD, special_entry("a/x.png", kind))
        yield Hostile(
            title=f"tar with a {title}", data=data, mentions=("a/x.png is not a regular file", "remove or replace")
        )

    def link(info: zipfile.ZipInfo) -> None:
        info.external_attr = 0o120777 << 16

    data = zipped(with_file("a/x.png", b"/etc/passwd"), alter=link)
    yield Hostile(title="zip with a link", data=data, mentions=("a/x.png is a link", "pack the file itself"))


def _names() -> Iterator[Hostile]:
    yield Hostile(
        title="tar with a name in Latin-1",
        data=tarred(with_file("caf\xe9/1.png")),
        mentions=("udce9/1.png", "rename it"),
    )
    broken = zipped(with_file("a/caf\u00e9.png")).replace("caf\u00e9".encode(), b"caf\xff\xff")
    yield Hostile(title="zip with a name that is no UTF-8", data=broken, mentions=("damaged archive", "pack it again"))
    for title, name in (
        ("a line break", "a/x\ny.png"), ("an escape sequence", "a/\x1b[2Jx.png"),
        ("letters right to left", "a/x\u202egnp.png"),
        ("a C1 control character", "a\x9b/1.png"),
    ):  # fmt: skip
        data = zipped(with_file(name))
        yield Hostile(title=f"zip with {title} in a name", data=data, mentions=("control characters", "rename it"))
    data = tarred(with_file("a/x\ny.png"))
    yield Hostile(title="tar with a line break in a name", data=data, mentions=("control characters", "rename it"))
    long = "a/" + "x" * 60_000 + ".png"
    yield Hostile(
        title="zip with a path of 60,000 letters", data=zipped(with_file(long)), mentions=("60,006", "shorter")
    )
    yield Hostile(
        title="tar with a path of 60,000 letters", data=tarred(with_file(long)), mentions=("60,006", "shorter")
    )
    many = "x/" * 400 + "y" * 300 + ".png"
    yield Hostile(
        title="zip with 400 folders in each other", data=zipped(with_file(many)), mentions=("1,104", "shorter")
    )
    folder = "n" * 300
    yield Hostile(
        title="class with a name of 300 letters", data=zipped(with_file(f"{folder}/1.png")), mentions=("300", "rename")
    )
    for size in (2**20, 2**33):
        header = tarfile.TarInfo("././@LongLink")
        header.type, header.size = tarfile.GNUTYPE_LONGNAME, size
        data = header.tobuf(tarfile.GNU_FORMAT) + b"x" * 2**20 + tarred(GOOD)
        yield Hostile(
            title=f"tar with a name of {size} bytes", data=data, mentions=(f"{size:,} bytes", "pack it again")
        )
        header.type = tarfile.XHDTYPE
        data = header.tobuf(tarfile.GNU_FORMAT) + b"x" * 2**20 + tarred(GOOD)
        yield Hostile(
            title=f"tar with a pax header of {size} bytes", data=data, mentions=(f"{size:,} bytes", "pack it again")
        )


def _many() -> Iterator[Hostile]:
    junk = {f"{number % 2}/{number}.png": b"junk" for number in range(100_000)}
    mentions = ("1,000 files or more", "0/0.png", "on_bad=skip")
    yield Hostile(
        title="zip of 100,000 files that are no images", data=zipped(junk), mentions=mentions, seconds=8, megabytes=400
    )
    yield Hostile(
        title="tar.gz of 100,000 files that are no images",
        data=gzip.compress(tarred(junk), 1),
        mentions=mentions,
        seconds=15,
        megabytes=400,
    )
    text = {f"{number}.txt": b"" for number in range(100_000)}
    yield Hostile(
        title="zip of 100,000 texts",
        data=zipped(text),
        mentions=("contains no images", ".png"),
        seconds=6,
        megabytes=400,
    )
    folders = {f"{number}/x.png": PNG for number in range(100_000)}
    yield Hostile(
        title="zip of 100,000 classes",
        data=zipped(folders),
        mentions=("100,000 class folders", "at most 256"),
        seconds=8,
    )
    flat = {f"{number}.png": b"" for number in range(210_000)}
    yield Hostile(
        title="zip of 210,000 images",
        data=zipped(flat),
        mentions=("more than 200,000", "fewer"),
        seconds=12,
        megabytes=500,
    )
    single = zipped({"x.txt": b""})
    at, end = single.index(b"PK\x01\x02"), single.index(b"PK\x05\x06")
    directory = single[at:end] * 500_000
    tail = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 500_000, 500_000, len(directory), at)
    tail += struct.pack("<4sLQL", b"PK\x06\x07", 0, at + len(directory), 1)
    tail += struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65535, 65535, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    data = single[:at] + directory + tail
    yield Hostile(
        title="zip whose directory has 500,000 entries", data=data, mentions=("500,000 files", "leave out"), seconds=2
    )
    tail_for_ten = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 10, 10, len(directory), at, 0)
    data = single[:at] + directory + tail_for_ten
    yield Hostile(
        title="zip with 25 MB of directory for ten files", data=data, mentions=("10 files", "pack it again"), seconds=2
    )


def _large_images() -> Iterator[Hostile]:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0))
    png = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")
    gif = b"GIF89a" + struct.pack("<HHBBB", 40_000, 40_000, 0x80, 0, 0) + bytes(6)
    gif += b"\x2c" + struct.pack("<HHHHB", 0, 0, 40_000, 40_000, 0) + b"\x02\x02\x4c\x01\x00\x3b"
    bmp = (
        b"BM"
        + struct.pack("<IHHI", 54, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, 40_000, 40_000, 1, 24, 0, 0, 0, 0, 0, 0)
    )
    jpeg = bytearray(image("JPEG"))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", 40_000, 40_000)
    for suffix, data in (("png", png), ("gif", gif), ("bmp", bmp), ("jpg", bytes(jpeg))):
        name = f"a/large.{suffix}"
        mentions = (name, "too many pixels", "scale it down")
        yield Hostile(
            title=f"{suffix} of 40,000 x 40,000 pixels", data=zipped(with_file(name, data)), mentions=mentions
        )
    grey = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 2**31 - 1, 1, 0, 0, 0, 0))
    tall = b"\x89PNG\r\n\x1a\n" + grey + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    mentions = ("a/tall.png", "too many pixels", "scale it down")
    yield Hostile(title="png of two billion rows", data=tarred(with_file("a/tall.png", tall)), mentions=mentions)
    wide = {f"{label}/{index}.png": image(side=600) for label in "ab" for index in range(2)}
    yield Hostile(title="images of 600 pixels without a size", data=zipped(wide), mentions=("600 x 600", "give a size"))
    mixed = zipped(with_file("a/odd.png", image(side=13)))
    yield Hostile(title="images of two sizes without a size", data=mixed, mentions=("2 sizes", "13x13", "give a size"))


def _broken_images() -> Iterator[Hostile]:
    for fmt, options in (("PNG", {}), ("JPEG", {}), ("WEBP", {"lossless": True}), ("BMP", {}), ("GIF", {})):
        data, name = image(fmt, 40, **options), f"a/cut.{fmt.lower()}"
        for ratio in (0.02, 0.6):
            cut = data[: max(4, int(ratio * len(data)))]
            title = f"{fmt} of which {ratio:.0%} is there"
            yield Hostile(
                title=title,
                data=tarred(with_file(name, cut)),
                mentions=(name, "remove or replace", "on_bad=skip"),
                fields={"size": "12"},
            )
    tiff = io.BytesIO()
    Image.new("RGB", (12, 12)).save(tiff, "TIFF")
    for title, name, data in (
        ("a page", "a/1x.jpg", b"<!DOCTYPE html><title>404</title>"),
        ("a drawing", "a/1x.png", b'<svg xmlns="http://www.w3.org/2000/svg"/>'),
        ("PostScript", "a/1x.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run"),
        ("a PDF", "a/1x.bmp", b"%PDF-1.7\n"),
        ("a program", "a/1x.gif", b"\x7fELF" + bytes(200)),
        ("a pickle", "a/1x.png", b"\x80\x04\x95\x00cos\nsystem\n."),
        ("a TIFF", "a/1x.png", tiff.getvalue()),
        ("a video", "a/1x.webp", b"RIFF\x10\0\0\0AVI LIST" + bytes(90)),
        ("nothing", "a/1x.png", b""),
    ):
        reason = "has the format TIFF" if title == "a TIFF" else "is not a PNG"
        mentions = (f"{name} {reason}", "remove or replace", "on_bad=skip")
        yield Hostile(title=f"{title} that is called an image", data=zipped(with_file(name, data)), mentions=mentions)
    flipped = bytearray(PNG)
    flipped[-20] ^= 255
    for title, bad in (
        ("zip", zipped(with_file("a/bad.png", bytes(flipped)))),
        ("tar", tarred(with_file("a/bad.png", bytes(flipped)))),
    ):
        yield Hostile(
            title=f"{title} with a PNG that is damaged",
            data=bad,
            mentions=("a/bad.png is truncated or damaged", "on_bad=skip"),
        )
    junk = dict.fromkeys(GOOD, b"junk")
    mentions = ("no image that can be read", "a/0.png")
    yield Hostile(
        title="nothing but junk, to be skipped", data=zipped(junk), mentions=mentions, fields={"on_bad": "skip"}
    )


def _bombs() -> Iterator[Hostile]:
    zeros = bytes(70 * 2**20)
    deflated = zipfile.ZIP_DEFLATED
    data = zipped(with_file("a/zeros.bmp", zeros), method=deflated)
    yield Hostile(title="zip with an image of 70 MB of zeros", data=data, mentions=("a/zeros.bmp", "scale"), seconds=2)
    packed = zipped({f"a/{number}.bmp": zeros[: 60 * 2**20] for number in range(3)}, method=deflated)
    yield Hostile(title="zip of 180 MB of zeros", data=packed, mentions=("unpacks to more than", "scale"), seconds=2)
    yield Hostile(
        title="tar.gz with 180 MB of zeros",
        data=gzip.compress(tarred({f"a/{number}.bmp": zeros[: 60 * 2**20] for number in range(3)})),
        mentions=("unpacks to more than", "scale"),
        seconds=3,
    )
    yield Hostile(
        title="gzip of 200 MB of nothing",
        data=gzip.compress(bytes(200 * 2**20)),
        mentions=("contains no images", ".png"),
        seconds=2,
    )
    yield Hostile(
        title="gzip of 400,000 empty members", data=gzip.compress(b"") * 400_000, mentions=("damaged archive", "again")
    )
    many_scans = zip_of_jpegs(20_000)
    mentions = ("a/1.jpg", "more than 100 scans", "on_bad=skip")
    yield Hostile(title="zip with 20,000 scans", data=many_scans, mentions=mentions, fields={"size": "12"}, seconds=2)
    single = zipped({"a/0.bmp": zeros[: 2**20]}, method=deflated)
    at, end = single.index(b"PK\x01\x02"), single.index(b"PK\x05\x06")
    directory = b"".join(single[at:end].replace(b"a/0.bmp", b"a/%d.bmp" % (number % 10)) for number in range(300))
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 300, 300, len(directory), at, 0)
    yield Hostile(
        title="zip of 300 entries over each other", data=single[:at] + directory + tail, mentions=("a/", "a"), seconds=2
    )
    text = b"Comment\0\0" + zlib.compress(bytes(80 * 2**20), 9)
    chunk = struct.pack(">I", len(text)) + b"zTXt" + text + struct.pack(">I", zlib.crc32(b"zTXt" + text))
    bomb = PNG[:33] + chunk + PNG[33:]
    mentions = ("a/text.png", "remove or replace")
    yield Hostile(
        title="png with a comment of 80 MB", data=zipped(with_file("a/text.png", bomb)), mentions=mentions, seconds=2
    )
    profile = b"x\0\0" + zlib.compress(bytes(80 * 2**20), 9)
    chunk = struct.pack(">I", len(profile)) + b"iCCP" + profile + struct.pack(">I", zlib.crc32(b"iCCP" + profile))
    cut = PNG[:33] + chunk + PNG[33:-30]
    mentions = ("a/profile.png", "remove or replace")
    yield Hostile(
        title="cut png with a profile of 80 MB",
        data=zipped(with_file("a/profile.png", cut)),
        mentions=mentions,
        seconds=2,
    )


def _containers() -> Iterator[Hostile]:
    good = zipped(with_file("a/x.png"))
    yield Hostile(
        title="zip that is encrypted",
        data=patch_directory_entry(good, 8, b"\x01\0"),
        mentions=("a/x.png is encrypted", "password"),
    )
    for title, method in (("bzip2", zipfile.ZIP_BZIP2), ("lzma", zipfile.ZIP_LZMA)):
        data = zipped(with_file("a/x.png"), alter=lambda info, method=method: setattr(info, "compress_type", method))
        yield Hostile(
            title=f"zip packed with {title}",
            data=data,
            mentions=("a/x.png uses an unsupported compression", "use deflate"),
        )
    yield Hostile(
        title="zip with another checksum",
        data=patch_directory_entry(good, 16, b"\1\2\3\4"),
        mentions=("a/x.png is damaged", "on_bad"),
    )
    short = patch_directory_entry(zipped(with_file("a/x.png"), method=zipfile.ZIP_DEFLATED), 24, struct.pack("<I", 20))
    yield Hostile(title="zip whose directory promises too little", data=short, mentions=("a/x.png", "on_bad"))
    long = patch_directory_entry(good, 24, struct.pack("<I", 2**31))
    yield Hostile(title="zip whose directory promises 2 GB", data=long, mentions=("a/x.png", "scale"))
    yield Hostile(title="zip without its end", data=good[:-30], mentions=("damaged archive", "pack it again"))
    yield Hostile(
        title="zip that is cut in the middle",
        data=good[: len(good) // 2],
        mentions=("damaged archive", "pack it again"),
    )
    yield Hostile(title="zip with nothing in it", data=zipped({}), mentions=("contains no images", ".png"))
    tar = tarred(GOOD)
    yield Hostile(title="tar that is cut in an image", data=tar[:1800], mentions=("damaged archive", "pack it again"))
    yield Hostile(
        title="tar that is cut in a header", data=tar[: 1024 * 3 + 100], mentions=("damaged archive", "pack it again")
    )
    at = tar.index(b"a/4.png")
    damaged = tar[: at + 100] + b"9" + tar[at + 101 :]
    yield Hostile(title="tar with a damaged header", data=damaged, mentions=("a header is damaged", "pack it again"))
    size = tar[:124] + b"\x80" + bytes(3) + struct.pack(">Q", 2**60) + tar[136:]
    total = sum(size[:148]) + sum(size[156:512]) + 8 * 32
    size = size[:148] + b"%06o\0 " % total + size[156:]
    yield Hostile(title="tar with an image of 2**60 bytes", data=size, mentions=("a/0.png", "scale"))
    yield Hostile(
        title="tar.gz that is cut", data=gzip.compress(tar)[:-60], mentions=("damaged archive", "pack it again")
    )
    packed = gzip.compress(tar)
    wrong = packed[:-8] + b"\0\0\0\0" + packed[-4:]
    yield Hostile(title="tar.gz with another checksum", data=wrong, mentions=("damaged archive", "pack it again"))
    yield Hostile(title="text called an archive", data=b"hello " * 100, mentions=("is not a zip file", "zip"))


def _folders() -> Iterator[Hostile]:
    flat = {f"{index}.png": PNG for index in range(9)}
    yield Hostile(title="images without folders", data=zipped(flat), mentions=("0.png", "a folder per class"))
    yield Hostile(
        title="one image beside the folders", data=tarred(with_file("x.png")), mentions=("x.png", "a folder per class")
    )
    one = {f"a/{index}.png": PNG for index in range(9)}
    yield Hostile(title="one class", data=zipped(one), mentions=("'a'", "at least two"))
    many = {f"c{label}/{index}.png": PNG for label in range(300) for index in range(2)}
    yield Hostile(title="300 classes", data=zipped(many), mentions=("300 class folders", "at most 256"))
    for part in ("validation", "test"):
        files = {f"{place}/{name}": data for place in {"train", "validation", part} for name, data in GOOD.items()}
        data = zipped(files | {f"{part}/new/1.png": PNG})
        yield Hostile(title=f"a class for {part} only", data=data, mentions=("'new'", "add some"))
    twice = zipped({**GOOD, "./a/0.png": PNG})
    yield Hostile(title="two files of one name", data=twice, mentions=("a/0.png", "remove one"))
    yield Hostile(
        title="no training images",
        data=zipped({f"val/{name}": PNG for name in GOOD} | {"test/a/1.png": PNG}),
        mentions=("only folders for", "add a folder train"),
    )
    for name, value in (("channels", "2"), ("channels", "rgb"), ("on_bad", "ignore"), ("size", "-1")):
        yield Hostile(title=f"{name}={value}", data=zipped(GOOD), mentions=(name, "must be"), fields={name: value})
