"""Hostile and invalid tables: the form fields of an upload, and a word that the error must contain."""

from __future__ import annotations

import codecs
import gzip
import io
import random
import zipfile
from collections.abc import Iterator, Mapping

from tests.security.slow_inputs import gzipped_rows

Fields = Mapping[str, bytes | str]

ROWS = 200
HEADER = b"age,city,height,label\n"
_RNG = random.Random(4)


def row(number: int) -> bytes:
    return f"{number % 70},{'Oslo' if number % 3 else 'Bergen'},{1.5 + number % 7 / 10},{'ab'[number % 2]}\n".encode()


BODY = b"".join(map(row, range(ROWS)))
GOOD = HEADER + BODY


def table(data: bytes, **fields: str) -> Fields:
    return {"table": data, **fields}


def hostile() -> Iterator[tuple[str, Fields, str]]:
    """Yield a title for the report, the form fields, and the expected word of the error."""
    # Lines, fields and quotes.
    yield "one giant line", table(b"a,b,c\n" + b"1," * 8_000_000), "line 2"
    yield "one giant header", table(b"a" * 20_000_000), "line 1"
    yield "a giant line in the middle", table(GOOD + b"x" * 4_000_000 + b"\n" + BODY), "line 202"
    yield (
        "10,000 columns",
        table(",".join(f"c{n}" for n in range(10_000)).encode() + b"\n" + b"1," * 9_999 + b"1\n"),
        ("10,000 columns"),
    )
    yield "half a million empty columns", table(b"," * 500_000 + b"\n" + b"," * 500_000 + b"\n"), "columns"
    yield "a quotation that never ends", table(GOOD + b'5,"Oslo,1.5,a\n' + BODY), "never closed"
    yield "a quotation of a megabyte", table(GOOD + b'5,"' + b"Oslo\n" * 300_000 + b'",1.5,a\n'), "characters"
    multiline_row = b'"' + b'a\n","b' * 2_000_000 + b'"'
    yield "one row over two million lines", table(GOOD + multiline_row + b"\n"), "row has more than"
    yield "text behind quotations", table(HEADER + b'5,"Os"lo,1.5,a\n' * 300), "quotation mark"
    yield "ragged rows", table(HEADER + b"1,2\n1,2,3,4,5\n" * 400), "fields instead of 4"
    yield "ragged rows at the end", table(GOOD + b"1,2\n" * 100), "line 202"
    yield "a million ragged rows", table(HEADER + b"1\n" * 1_000_000), "1 field instead of 4"
    # Bytes.
    yield "NUL bytes", table(GOOD + b"5,Os\0lo,1.5,a\n"), "NUL"
    yield "NUL bytes only", table(bytes(5_000_000)), "NUL"
    yield "random bytes", table(_RNG.randbytes(3_000_000)), "line"
    yield (
        "mixed encodings",
        table(GOOD + "5,Tromsø,1.5,a\n".encode() + "5,Bodø,1.5,a\n".encode("latin-1")),
        ("mixes encodings"),
    )
    yield (
        "mixed encodings, the other way",
        table(GOOD + "5,Bodø,1.5,a\n".encode("latin-1") + "5,Tromsø,1.5,a\n".encode()),
        "mixes encodings",
    )
    yield "a mark of UTF-8 before latin-1", table(codecs.BOM_UTF8 + GOOD + "5,Bodø,1.5,a\n".encode("latin-1")), "UTF-8"
    yield "UTF-16 cut in a character", table(GOOD.decode().encode("utf-16")[:-1]), "UTF-16"
    yield (
        "UTF-16 with a lone surrogate",
        table(codecs.BOM_UTF16_LE + b"\x00\xd8a\0" + GOOD.decode().encode("utf-16-le")),
        ("UTF-16"),
    )
    yield "UTF-32", table(GOOD.decode().encode("utf-32")), "UTF-32"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("xl/workbook.xml", "<x/>")
    yield "a spreadsheet", table(buffer.getvalue()), "CSV"
    yield "gzip that unpacks to 300 MB of one line", table(gzip.compress(b"a" * 300_000_000, 1)), "line"
    yield "gzip without an end", table(gzip.compress(GOOD)[:-9]), "damaged"
    yield "gzip with another checksum", table(gzip.compress(GOOD)[:-8] + bytes(8)), "damaged"
    yield "gzip in gzip", table(gzip.compress(gzip.compress(GOOD))), ""
    yield "gzip of 12 million short rows", table(gzipped_rows(12_000_000, b"1,2\n")), "10,000,000 rows"
    yield "gzip of 12 million empty rows", table(gzipped_rows(12_000_000, b"\n")), "10,000,000 rows"
    yield "gzip of many empty members", table(gzip.compress(b"") * 300_000), "damaged"
    # Headers and columns.
    yield "empty file", table(b""), "empty"
    yield "blank file", table(b"\n\n \n"), "empty"
    yield "only a header", table(HEADER), "no rows"
    yield "no header", table(b"1,2,3\n4,5,6\n" * 50), "line 1"
    yield "one column", table(b"label\na\nb\n"), "one column"
    yield "duplicated column names", table(b"a,b,a,label\n1,2,3,x\n"), "same name"
    yield "a column name of 5,000 letters", table(b"a" * 5000 + b",label\n1,x\n"), "characters"
    yield (
        "categories of 40 MB",
        table(b"a,b,label\n" + b"".join(b"%d%s,1,x\n" % (n, b"z" * 20_000) for n in range(200))),
        "",
    )
    yield "nothing to learn from", table(b"a,b,label\n" + b"1,same,x\n1,same,y\n" * 100), "no column"
    # Targets.
    yield "unknown target", table(GOOD, target="lable"), "did you mean 'label'"
    yield "a constant target", table(b"a,b\n" + b"".join(b"%d,x\n" % (n % 9) for n in range(99))), "every row"
    yield "a target without values", table(b"a,b\n" + b"".join(b"%d,NA\n" % (n % 9) for n in range(99))), "no value"
    prices = b"".join(b"%d,%.3f\n" % (n % 9, n * 1.37) for n in range(5000))
    yield (
        "a numeric target with thousands of values, as classes",
        table(b"rooms,price\n" + prices, task="classification"),
        "regression",
    )
    yield "a text target as a number", table(GOOD, target="city", task="regression"), "number"
    yield "a constant number", table(b"a,b\n" + b"".join(b"%d,2.5\n" % (n % 9) for n in range(99))), "every row"
    yield "an unknown task", table(GOOD, task="ranking"), "classification"
    yield (
        "a target with thousands of texts",
        table(b"a,b\n" + b"".join(b"%d,n%d\n" % (n % 9, n) for n in range(5000))),
        "different values",
    )
    yield (
        "a target with a million texts",
        table(b"a,b\n" + b"".join(b"1,%x\n" % n for n in range(1_000_000))),
        "different values",
    )
    yield "classes of one row each", table(b"a,b\n1,x\n2,y\n3,z\n"), "validation"
    yield "a class name of 5,000 letters", table(b"a,b\n" + (b"1," + b"x" * 5000 + b"\n2,y\n") * 50), "characters"
    # Types.
    yield "types that are no JSON", table(GOOD, types="age=number"), "JSON"
    yield "an unknown type", table(GOOD, types='{"age": "float"}'), "number"
    yield "types of unknown columns", table(GOOD, types='{"agee": "number"}'), "did you mean 'age'"
    yield (
        "types that ignore all",
        table(GOOD, types='{"age": "ignore", "city": "ignore", "height": "ignore"}'),
        ("no column"),
    )
    yield "the target ignored", table(GOOD, types='{"label": "ignore"}'), "target"
    # Parts.
    header_with_part = HEADER.replace(b"label", b"part,label")
    part_rows = b"".join(b"5,Oslo,1.5,%x,%s\n" % (n, b"ab"[n % 2 : n % 2 + 1]) for n in range(500_000))
    yield (
        "parts with half a million words",
        table(header_with_part + part_rows, split="part"),
        "different values that are no parts",
    )
    long_parts = b"".join(
        b"%d,Oslo,1.%d,%s,%s\n" % (n % 9, n % 7, b"t" * 90_000, b"ab"[n % 2 : n % 2 + 1]) for n in range(30)
    )
    yield "parts of 90,000 letters", table(header_with_part + long_parts, split="part"), "train, validation"
    yield (
        "no row to train on",
        table(header_with_part + b"5,Oslo,1.5,test,a\n6,Oslo,1.5,val,b\n" * 50, split="part"),
        "no row to train",
    )
    yield "numbers that are texts", table(GOOD, types='{"city": "number"}'), "not a number"
    yield "dates that are texts", table(GOOD, types='{"city": "date"}'), "not a date"
    many_categories = HEADER + b"".join(b"%d,x%d,1.5,%s\n" % (n % 9, n, b"ab"[n % 2 : n % 2 + 1]) for n in range(2000))
    yield "too many categories", table(many_categories, types='{"city": "category"}'), "categories"
    yield "a target without a table", {"archive": b"x", "target": "label"}, ""
    yield "a table and images", {"table": GOOD, "images": b"x"}, "only file"
    yield "a size for a table", table(GOOD, size="32"), "image"
