"""What `tapeline upload` refuses before it sends anything, and the remedies it names."""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Run = Callable[..., Result]
TABLE = "x,kind\n" + "".join(f"{n % 7},{'ab'[n % 2]}\n" for n in range(40))


def spreadsheet() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    return data.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("x.xlsx", spreadsheet(), "a spreadsheet: save the sheet as CSV"),
        ("disguised.csv", spreadsheet(), "a spreadsheet: save the sheet as CSV"),
        ("t.parquet", b"PAR1", "a Parquet file: convert the table to CSV"),
        ("without-suffix", b"PAR1", "a Parquet file: convert the table to CSV"),
        ("t.json", b"[1]", "a JSON file: convert the table to CSV"),
        ("a.tar.xz", b"\xfd7zXZ\0", "an unsupported archive: upload the folder itself"),
        ("a.7z", b"7z\xbc\xaf", "an unsupported archive: upload the folder itself"),
        ("rows.csv.xz", b"\xfd7zXZ\0", "compressed in an unsupported way: unpack it"),
        ("photo.jpg", b"\xff\xd8\xff", "a single image: upload a folder that has a folder of images for each class"),
        ("README", b"hello", "not a file that can be uploaded: these are CSV"),
    ],
)
def test_an_unsupported_file_is_refused_with_its_kind_and_the_remedy(
    run: Run, name: str, content: bytes, reason: str
) -> None:
    Path(name).write_bytes(content)
    refused = run("upload", name, "--name", "refused", "--size", "32")
    assert (refused.exit_code, refused.stderr) == (1, refused.stderr.replace("\n", "") + "\n"), refused.output
    assert refused.stderr.startswith(f"tapeline: {name} is {reason}")


@pytest.mark.parametrize("command", ["upload", "train"])
def test_an_unsupported_file_is_refused_before_its_name_is_checked(run: Run, command: str) -> None:
    Path("neu apfel.jpg").write_bytes(b"\xff\xd8\xff")
    refused = run(command, "neu apfel.jpg")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "neu apfel.jpg is a single image: upload a folder" in refused.stderr
    assert "--name" not in refused.stderr


@pytest.mark.parametrize("name", ["t.txt", "t.csv.gz"])
def test_a_table_can_have_the_suffix_txt_or_be_gzipped(run: Run, name: str) -> None:
    Path(name).write_bytes(gzip.compress(TABLE.encode(), mtime=0) if name.endswith("gz") else TABLE.encode())
    refused = run("upload", name, "--name", f"txt-{len(name)}", "--size", "32")
    assert refused.stderr == f"tapeline: {name} is a table; --size applies to images\n"
    result = run("upload", name, "--name", f"txt-{len(name)}")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == f"next: tapeline train --dataset txt-{len(name)} --watch"


def test_a_file_is_not_mistaken_for_the_name_of_the_dataset(run: Run) -> None:
    for name in ("train.csv", "test.csv", "images-idx3-ubyte", "labels-idx1-ubyte"):
        Path(name).write_text(TABLE)
    for arguments in (["train.csv", "test.csv"], ["train.csv", "test.csv", "--name", "two"]):
        refused = run("upload", *arguments)
        assert refused.exit_code == 1
        assert "join them into one file and use --split" in refused.stderr
    refused = run("upload", "images-idx3-ubyte", "labels-idx1-ubyte")
    assert (
        "images-idx3-ubyte is a file, not a name; name the dataset with --name, for example --name images"
        in refused.stderr
    )
    Path("cats").mkdir()
    Path("dogs").mkdir()
    assert "move them into one folder: cats and dogs" in run("upload", "cats", "dogs").stderr
    listed = run("datasets").stdout
    assert "train.csv" not in listed
    assert "images-idx3-ubyte" not in listed


def test_the_name_of_an_existing_folder_is_accepted_as_a_dataset_name(run: Run) -> None:
    Path("pets").mkdir()
    assert "pets contains no images" in run("upload", "pets", "pets/").stderr
