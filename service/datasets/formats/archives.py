"""Reads untrusted zip and tar archives (also gzipped) one member at a time. Nothing is unpacked to disk.

The numbers in directories and headers (count of members, length of names, unpacked sizes) are checked against limits
before they are used.
"""

from __future__ import annotations

import io
import os
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Final, Self, cast

from service.datasets.errors import DatasetBroken, DatasetError
from service.datasets.formats.streams import Gunzip

SUFFIXES: Final = (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar")
"""File name extensions of archives, to recognize archives inside an archive."""
MAX_MEMBERS: Final = 400_000
MAX_MEMBER_BYTES: Final = 64 * 2**20
MAX_NAME: Final = 1000
"""Maximum length of a member's path, in characters."""
MAX_UNPACKED_BYTES: Final = 2 * 2**30
"""Maximum unpacked size of all members together."""
MAX_RATIO: Final = 100
"""Maximum compression ratio of an archive, beyond the first ``_FREE_BYTES``."""
_FREE_BYTES: Final = 64 * 2**20
_MAX_HEADER_BYTES: Final = 2**16
"""Maximum size of the extended headers of a tar member, such as its long name."""
_DIRECTORY_ENTRY_BYTES: Final = 512
_END: Final = struct.Struct("<4s4H2LH")
_END_64: Final = struct.Struct("<4sQ2H2L4Q")
_LOCATOR_64: Final = struct.Struct("<4sLQL")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_DRIVE: Final = re.compile(r"[A-Za-z]:")
_UTF8_NAME: Final = 0x800
_ENCRYPTED: Final = 0x1
_MEMBER_RAISES: Final = (
    zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError,
)  # fmt: skip
"""Raised for damaged content of a zip member; other members may be intact."""
_RAISES: Final = (*_MEMBER_RAISES, tarfile.TarError, struct.error)


class UnreadableMember(ValueError):
    """A file of an archive cannot be read; the message gives the reason."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive.

    Attributes:
        name: its relative path, with slashes.
        read: returns its content, or raises UnreadableMember.
    """

    name: str
    read: Callable[[], IO[bytes]]


def is_archive(path: Path) -> bool:
    """Whether a file starts like a zip, gzip or tar file."""
    with path.open("rb") as file:
        head = file.read(512)
    return head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b")) or head[257:262] == b"ustar"


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Translate errors about damaged archives into DatasetBroken."""
    try:
        yield
    except DatasetError:
        raise
    except _RAISES as error:
        raise DatasetBroken(path, f"is a damaged archive ({_describe_error(error)}); pack it again") from error


def members(path: Path) -> Iterator[Member]:
    """The files of an archive, in order, without folders.

    Raises:
        DatasetBroken: too many files, a path that leads outside the archive, or too large when unpacked.
    """
    with path.open("rb") as file:
        head = file.read(4)
        file.seek(0)
        is_zip = head.startswith(b"PK")
        source = (
            _zip_members(path, file) if is_zip else _tar_members(path, file, is_packed=head.startswith(b"\x1f\x8b"))
        )
        total = 0
        max_bytes = min(MAX_UNPACKED_BYTES, _FREE_BYTES + MAX_RATIO * path.stat().st_size)
        for count, (name, size, read) in enumerate(source, 1):
            total += max(0, size)
            if count > MAX_MEMBERS:
                raise DatasetBroken(path, f"has more than {MAX_MEMBERS:,} files; leave out those that are not images")
            if total > max_bytes:
                detail = f"unpacks to more than {max_bytes:,} bytes by {name[:200]!r}; scale its images down"
                raise DatasetBroken(path, detail)
            member_path = name.replace("\\", "/")
            if member_path.startswith("/") or _DRIVE.match(member_path) or ".." in PurePosixPath(member_path).parts:
                detail = f"has a file with the path {name[:200]!a}; pack the folder again with paths relative to it"
                raise DatasetBroken(path, detail)
            yield Member(member_path.removeprefix("./"), read)


def check_name(path: Path, name: str) -> None:
    """Check that the name of a member is short, UTF-8 and free of control characters.

    Raises:
        DatasetBroken
    """
    shown = ascii(name[:200])
    if len(name) > MAX_NAME:
        raise DatasetBroken(path, f"has a file with a path of {len(name):,} characters, {shown}; use a shorter one")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise DatasetBroken(path, f"has a file whose name is not UTF-8, {shown}; rename it") from error
    if _CONTROL.search(name):
        raise DatasetBroken(path, f"has a file with control characters in its name, {shown}; rename it")


def _zip_members(path: Path, file: IO[bytes]) -> Iterator[tuple[str, int, Callable[[], IO[bytes]]]]:
    check_directory(path, file, MAX_MEMBERS)
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            if not member.filename.endswith(("/", "\\")):  # is_dir fails for an empty name
                yield _zip_name(member), member.file_size, partial(_read_zip_member, archive, member)


def check_directory(path: Path, file: IO[bytes], max_members: int) -> None:
    """Check the size of a zip's directory, which is read as a whole.

    Raises:
        BadZipFile: there is no directory, or it is too large for its files.
        DatasetBroken: it has more files than ``max_members``.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _END.size - 2**16))
    tail = file.read()
    position = tail.rfind(b"PK\x05\x06")
    if position < 0 or position + _END.size > len(tail):
        raise zipfile.BadZipFile("it is not a zip file, or has no directory at its end")
    count, directory_bytes = _END.unpack_from(tail, position)[4:6]
    if (
        position >= _LOCATOR_64.size
        and (locator := _LOCATOR_64.unpack_from(tail, position - _LOCATOR_64.size))[0] == b"PK\x06\x07"
    ):
        file.seek(min(locator[2], size))
        end_record = file.read(_END_64.size)
        if len(end_record) < _END_64.size or not end_record.startswith(b"PK\x06\x06"):
            raise zipfile.BadZipFile("it has no directory at the expected position")
        count, directory_bytes = _END_64.unpack(end_record)[7:9]
    if count > max_members or directory_bytes > max(2**16, max_members * _DIRECTORY_ENTRY_BYTES // 4):
        detail = f"has {count:,} files and a directory of {directory_bytes:,} bytes; at most {max_members:,} files are"
        raise DatasetBroken(path, f"{detail} read; leave out those that are not needed")
    if directory_bytes > max(2**16, (count + 1) * _DIRECTORY_ENTRY_BYTES):
        raise zipfile.BadZipFile(f"its directory has {directory_bytes:,} bytes for {count:,} files")
    file.seek(0)


def _zip_name(member: zipfile.ZipInfo) -> str:
    """The name of a member. Many tools write UTF-8 without setting the flag."""
    if member.flag_bits & _UTF8_NAME:
        return member.filename
    try:
        return member.filename.encode("cp437").decode()
    except UnicodeError:
        return member.filename


def _read_zip_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> IO[bytes]:
    if stat.S_ISLNK(member.external_attr >> 16):
        raise UnreadableMember("is a link: pack the file itself")
    if member.flag_bits & _ENCRYPTED:
        raise UnreadableMember("is encrypted: pack it without a password")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UnreadableMember("uses an unsupported compression: use deflate, or none")
    _check_size(member.file_size)
    try:  # offsets outside the file are an OSError
        return _read_content(archive.open(member), member.file_size)
    except _MEMBER_RAISES as error:
        raise UnreadableMember(f"is damaged in the archive ({_describe_error(error)})") from error


def _tar_members(path: Path, file: IO[bytes], *, is_packed: bool) -> Iterator[tuple[str, int, Callable[[], IO[bytes]]]]:
    source = cast("IO[bytes]", Gunzip(file)) if is_packed else file
    with tarfile.open(fileobj=source, mode="r|", tarinfo=_TarEntry) as archive:
        for member in archive:
            archive.members.clear()  # type: ignore[attr-defined]  # typeshed lacks it; without this, all are kept
            if not member.isdir():
                yield member.name, member.size, partial(_read_tar_entry, archive, member)


def _read_tar_entry(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    if member.issym() or member.islnk():
        raise UnreadableMember("is a link: pack the file itself, as tar --dereference --hard-dereference does")
    content = archive.extractfile(member) if member.isreg() else None
    if content is None:
        raise UnreadableMember("is not a regular file")
    _check_size(member.size)
    return _read_content(content, member.size)


class _TarEntry(tarfile.TarInfo):
    """A tar header that raises an error if it is damaged; tarfile would treat it as the end of the archive."""

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile)
        except Exception as error:
            if type(error).__name__ in ("InvalidHeaderError", "TruncatedHeaderError"):
                raise ValueError(f"a header is damaged: {error}") from error
            raise

    def _proc_member(self, tarfile: tarfile.TarFile) -> Self:
        if not (self.isreg() or self.size <= _MAX_HEADER_BYTES):
            raise ValueError(f"a header declares {self.size:,} bytes of information about a file")
        return cast("Self", super()._proc_member(tarfile))  # type: ignore[misc]  # documented in its source only


def _check_size(size: int) -> None:
    if size > MAX_MEMBER_BYTES:
        raise UnreadableMember(f"has {size:,} bytes; at most {MAX_MEMBER_BYTES:,} are read: scale it down")


def _read_content(content: IO[bytes], size: int) -> IO[bytes]:
    """The content as a seekable file, which Pillow needs."""
    with content:
        data = content.read(size + 1)
    if len(data) > size:
        raise zipfile.BadZipFile("it unpacks to more than the directory says")
    return io.BytesIO(data)


def _describe_error(error: BaseException) -> str:
    text = str(error)[:200] or type(error).__name__
    return text if text.isprintable() else ascii(text)
