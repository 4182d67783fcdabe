"""Reads untrusted CSV and TSV files, plain or gzipped, row by row.

A file is read several times: its beginning to detect encoding, delimiter and header, the whole file to check its bytes
(``check``), then its rows as often as needed (``rows``). The length of lines and rows is limited, so memory does not
depend on the file. Rows are parsed by the standard library's ``csv``, which reads a gigabyte in half a minute.
"""

from __future__ import annotations

import codecs
import csv
import os
import re
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Final

from service.datasets.errors import DatasetBroken
from service.datasets.formats.streams import CHUNK, Gunzip, Readable
from service.datasets.info import OnProgress

MAX_LINE_BYTES: Final = CHUNK
MAX_FIELD: Final = 100_000
"""Maximum length of a field, in characters."""
MAX_ROW: Final = 2**21
"""Maximum length of a row in characters; quoted fields may spread a row over several lines."""
DELIMITERS: Final = {",": "comma", "\t": "tab", ";": "semicolon", "|": "vertical bar"}
_DELIMITER_LINE: Final = re.compile(rf'"?sep=([{"".join(DELIMITERS)}])"?\s*', re.IGNORECASE)
"""A first line that states the delimiter, for Excel."""
_MAX_NAMED: Final = 10_000
"""Fields of the header beyond these get no name: a line of commas has a million of them."""
_FIELD_ENDS: Final = f"[{''.join(DELIMITERS)}\r\n]"
_QUOTED: Final = re.compile(rf'((?:^|{_FIELD_ENDS}) *)"[^"]*(?:""[^"]*)*(?:"(?= *(?:{_FIELD_ENDS}|\Z))|\Z)')
"""A field in quotation marks, between delimiters of any kind. A quotation mark inside is doubled, so each is
examined only once."""
_LINE_END: Final = re.compile(r"\r?\n|\r")
_SAMPLED_ROWS: Final = 100
_SAMPLED_CHARACTERS: Final = 2**16
_HEAD_BYTES: Final = 4 * _SAMPLED_CHARACTERS
_HEAD_LINES: Final = 2
"""Lines above the rows: the delimiter and the header."""
_GZIP: Final = b"\x1f\x8b"
_BOMS: Final = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""The order matters: the mark of UTF-32 starts like that of UTF-16."""
_UNDEFINED: Final = bytes((0x81, 0x8D, 0x8F, 0x90, 0x9D))
"""Bytes that are undefined in Windows-1252."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DelimitedFile:
    """A CSV file with the properties detected from its first lines.

    Attributes:
        encoding: Python's name; for an 8-bit file without a byte order mark, ``check`` determines it.
        max_rows: maximum number of rows.
        ends_in_cr: whether lines end with CR only, as on early Macintosh computers.
        skipped_lines: 1 if the first line states the delimiter, as in ``sep=;``, else 0.
        header: the fields of the first row; those without a name are called ``column_5``, after their position.
        unnamed: the indices of the fields without a name.
        on_progress: called during each pass over the file, with the fraction that has been read.
    """

    path: Path
    max_bytes: int
    max_rows: int
    is_gzipped: bool
    encoding: str
    ends_in_cr: bool
    delimiter: str
    skipped_lines: int = 0
    header: tuple[str, ...] = ()
    unnamed: frozenset[int] = frozenset()
    on_progress: OnProgress = field(default=lambda done: None, compare=False)

    def rows(self) -> Iterator[tuple[int, list[str] | str]]:
        """The rows below the header: the number of their first line, and their fields or an error message.

        Empty lines are skipped, and so are empty fields beyond the header, as of lines that end with a delimiter.

        Raises:
            DatasetBroken: the rows after an error cannot be separated any more.
        """
        lines = _Lines(self)
        reader = csv.reader(lines, delimiter=self.delimiter, strict=True, skipinitialspace=True)
        csv.field_size_limit(MAX_FIELD)
        is_header, width = True, len(self.header)
        while True:
            line = self.skipped_lines + reader.line_num + 1
            lines.pending = 0
            try:
                fields: list[str] | str = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                fields = self._row_error(line, str(error))
            if is_header:
                is_header = not fields  # empty lines before the header
            elif fields:
                if len(fields) > width and isinstance(fields, list) and not any(map(str.strip, fields[width:])):
                    del fields[width:]
                yield line, fields

    def check(self) -> DelimitedFile:
        """Read all bytes; returns the file with its final encoding.

        Raises:
            DatasetBroken: NUL bytes, mixed encodings, too many lines, one that is too long, or a damaged gzip file.
        """
        first_utf8 = first_other = 0
        has_undefined = False
        for start, text in _whole_lines(self):
            if text.isascii():
                continue
            for number, line in enumerate(text.split(b"\n"), start):
                if line.isascii():
                    continue
                try:
                    line.decode("utf-8")
                    first_utf8 = first_utf8 or number
                except UnicodeDecodeError:
                    first_other = first_other or number
                    has_undefined = has_undefined or bool(line.translate(None, delete=_NOT_UNDEFINED))
                if first_utf8 and first_other:
                    detail = f"is not UTF-8, but line {first_utf8:,} is: the file mixes encodings; save it as UTF-8"
                    raise self._broken(first_other, detail)
        if not first_other:
            return self
        if self.encoding == "utf-8-sig":
            raise self._broken(first_other, "is not UTF-8, though the file begins with the mark of UTF-8")
        file = replace(self, encoding="latin-1" if has_undefined else "cp1252")
        return _with_header(file)  # it was read as UTF-8

    def _row_error(self, line: int, error: str) -> str:
        """The error message for a row; raises DatasetBroken if the parser cannot continue."""
        if "field limit" in error:
            detail = f"has a field of more than {MAX_FIELD:,} characters; is a quotation mark missing at its end?"
            raise self._broken(line, detail)
        if "unexpected end" in error:
            raise self._broken(line, "opens a quotation mark that is never closed")
        return "has characters after a quotation mark" if "expected after" in error else "has a line break in a field"

    def check_count(self, lines: int, *, is_quoted: bool) -> None:
        """Refuse a file with too many lines before they are parsed: a row is a line, or several in quotation marks.

        Args:
            lines: number of lines read so far, with empty ones.
            is_quoted: whether there was a quotation mark.

        Raises:
            DatasetBroken
        """
        limit = 2 * self.max_rows if is_quoted else self.max_rows
        if lines > limit + _HEAD_LINES:
            noun = "lines" if is_quoted else "rows"
            raise DatasetBroken(self.path, f"has more than {limit:,} {noun}, counting empty ones; send fewer")

    def _broken(self, line: int, detail: str) -> DatasetBroken:
        return DatasetBroken(self.path, f"line {line:,} {detail}")


_NOT_UNDEFINED: Final = bytes(byte for byte in range(256) if byte not in _UNDEFINED)


def open_delimited(path: Path, *, max_bytes: int, max_rows: int = sys.maxsize) -> DelimitedFile:
    """Detect encoding, delimiter and header from the first 256 KiB.

    Args:
        max_bytes: maximum unpacked size of the file.
        max_rows: maximum number of rows; ``check`` refuses a file with more lines than they can have.

    Raises:
        DatasetBroken: they show that the file is not a table.
    """
    with path.open("rb") as file:
        magic = file.read(4)
    if magic[:4] == b"PK\x03\x04":
        raise DatasetBroken(path, "is a zip archive or a spreadsheet; save the table as CSV, plain or gzipped")
    undetected = DelimitedFile(
        path=path,
        max_bytes=max_bytes,
        max_rows=max_rows,
        is_gzipped=magic.startswith(_GZIP),
        encoding="utf-8",
        ends_in_cr=False,
        delimiter=",",
    )
    head = b""
    for piece in _pieces(undetected, _HEAD_BYTES):
        head += piece
        if len(head) >= _HEAD_BYTES:
            break
    if not head.strip():
        raise DatasetBroken(path, "is empty")
    encoding = next((name for mark, name in _BOMS.items() if head.startswith(mark)), _guess_encoding(head))
    if encoding == "utf-32":
        raise DatasetBroken(path, "is encoded as UTF-32; save it as UTF-8")
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    text = decoder.decode(head, final=len(head) < _HEAD_BYTES)
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise DatasetBroken(path, f"line {line:,} contains a NUL byte; is it text?")
    ends_in_cr = "\n" not in text and "\r" in text
    if ends_in_cr:
        text = text.replace("\r", "\n")
    match = _DELIMITER_LINE.fullmatch(text.partition("\n")[0])
    delimiter = match[1] if match else _detect_delimiter(text)
    skipped = 1 if match else 0
    detected = replace(undetected, encoding=encoding, ends_in_cr=ends_in_cr, delimiter=delimiter, skipped_lines=skipped)
    return _with_header(detected)


def _with_header(file: DelimitedFile) -> DelimitedFile:
    """The same file with the fields of its first row."""
    csv.field_size_limit(MAX_FIELD)
    reader = csv.reader(_Lines(file), delimiter=file.delimiter, strict=True, skipinitialspace=True)
    try:
        header = next((row for row in reader if row), [])
    except csv.Error as error:
        line = file.skipped_lines + reader.line_num
        raise DatasetBroken(file.path, f"line {line:,}: {file._row_error(line, str(error))}") from error
    names = [name.strip() for name in header]
    unnamed = frozenset(index for index, name in enumerate(names[:_MAX_NAMED]) if not name)
    for index in unnamed:
        names[index] = f"column_{index + 1}"
    return replace(file, header=tuple(names), unnamed=unnamed)


def _guess_encoding(head: bytes) -> str:
    """The encoding of a file without a mark: UTF-8, or UTF-16 if every other byte is zero."""
    for offset, name in ((1, "utf-16-le"), (0, "utf-16-be")):
        half = head[offset:1024:2]
        if len(half) > 3 and half.count(0) > 0.7 * len(half) and not head[1 - offset : 1024 : 2].count(0):
            return name
    return "utf-8"


def _detect_delimiter(text: str) -> str:
    """The delimiter by which most rows are as wide as the header; among equals, the one with the widest
    header.

    Delimiters inside quotation marks do not count.
    """
    unquoted = _QUOTED.sub(r"\1x", text[:_SAMPLED_CHARACTERS])
    lines = _LINE_END.split(unquoted)
    if len(text) > _SAMPLED_CHARACTERS and len(lines) > 1:
        lines.pop()  # it is cut off
    rows = [line for line in lines if line.strip(" ")][:_SAMPLED_ROWS]
    best, best_score = ",", (0, 1)
    for delimiter in DELIMITERS:
        widths = [row.count(delimiter) + 1 for row in rows]
        if widths and widths[0] > 1:
            score = (widths.count(widths[0]), widths[0])
            best, best_score = (delimiter, score) if score > best_score else (best, best_score)
    return best


class _Lines:
    """The lines of a file as text. ``pending`` counts the characters since it was last reset to 0.

    Raises:
        DatasetBroken: while reading: a line or a row that is too long, bytes of another encoding, or NUL.
    """

    def __init__(self, file: DelimitedFile) -> None:
        self._file, self.pending = file, 0
        self._lines = islice(self._read(), file.skipped_lines, None)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.pending += len(line)
        if self.pending > MAX_ROW:
            detail = f"a row has more than {MAX_ROW:,} characters; is a quotation mark missing?"
            raise DatasetBroken(self._file.path, detail)
        return line

    def _read(self) -> Iterator[str]:
        encoding = "utf-8" if self._file.encoding.startswith("utf-16") else self._file.encoding
        for number, block in _whole_lines(self._file):
            # Before ``check``, only the header is read; after it, each line can be decoded.
            text = block.decode(encoding if number == 1 else encoding.removesuffix("-sig"), "replace")
            *lines, rest = text.split("\n")
            for line in lines:
                yield f"{line}\n"
            if rest:
                yield rest


def _whole_lines(file: DelimitedFile) -> Iterator[tuple[int, bytes]]:
    """Blocks of whole lines as bytes, each with the number of its first line; UTF-16 as UTF-8."""
    number, partial_line, is_quoted = 1, b"", False
    for piece in _pieces(file):
        text = partial_line + (piece.replace(b"\r", b"\n") if file.ends_in_cr else piece)
        if (position := text.find(b"\0", len(partial_line))) >= 0:
            raise file._broken(number + text.count(b"\n", 0, position), "contains a NUL byte; is it text?")
        end = text.rfind(b"\n") + 1
        lines = text.count(b"\n", 0, end)
        if len(text) - end > MAX_LINE_BYTES:
            detail = f"has more than {MAX_LINE_BYTES:,} bytes; rows must be on lines of their own"
            raise file._broken(number + lines, detail)
        is_quoted = is_quoted or b'"' in piece
        if end:
            file.check_count(number - 1 + lines, is_quoted=is_quoted)
            yield number, text[:end]
        number, partial_line = number + lines, text[end:]
    if partial_line:
        yield number, partial_line


def _pieces(file: DelimitedFile, size: int = CHUNK // 4) -> Iterator[bytes]:
    """The unpacked bytes, in pieces; UTF-16 as UTF-8."""
    total = 0
    decoder = codecs.getincrementaldecoder(file.encoding)() if file.encoding.startswith("utf-16") else None
    try:
        with file.path.open("rb") as raw_file:
            stream: Readable = Gunzip(raw_file) if file.is_gzipped else raw_file
            size_bytes = os.fstat(raw_file.fileno()).st_size
            while piece := stream.read(size):
                total += len(piece)
                if total > file.max_bytes:
                    raise DatasetBroken(file.path, f"has more than {file.max_bytes:,} bytes, unpacked")
                file.on_progress(raw_file.tell() / size_bytes)
                yield piece if decoder is None else decoder.decode(piece).encode()
        if decoder is not None:
            decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise DatasetBroken(file.path, f"is not {file.encoding.upper()} throughout; save it as UTF-8") from error
    except (zlib.error, EOFError) as error:
        reason = str(error) or "it is truncated"
        raise DatasetBroken(file.path, f"is damaged: the gzip data cannot be unpacked ({reason})") from error
