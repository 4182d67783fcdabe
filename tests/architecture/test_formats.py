"""The tables of formats, and the texts that name each of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.cli import uploading
from service.cli.commands import inference
from service.datasets.sandbox import FIELDS, FORMATS
from service.storage.artifacts import EXPORTS
from service.web.datasets.uploads import UploadForm
from service.web.models import exports
from tapeline.operations.datasets import UploadOptions

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("kind", EXPORTS)
def test_documents_and_help_name_every_export_format(kind: str) -> None:
    rows = [line for line in (ROOT / "docs/exports.md").read_text("utf-8").splitlines() if line.startswith("| `")]
    assert any(row.startswith(f"| `{kind}`") for row in rows)
    assert f"`{kind}`" in (exports.export.__doc__ or "")
    assert kind in (inference.export.help or "")


def test_the_form_of_an_upload_has_the_files_and_options_of_every_format() -> None:
    page = (ROOT / "service/web/datasets/templates/index.html").read_text("utf-8")
    assert set(FIELDS) <= set(UploadForm.model_fields)
    for entry in FORMATS:
        options = () if entry.options is None else entry.options.__dataclass_fields__
        for name in (*entry.fields, *options):
            assert name in UploadForm.model_fields
            assert f'name="{name}"' in page


def test_the_command_and_the_client_have_the_options_of_the_form() -> None:
    options = set(UploadForm.model_fields) - {*FIELDS, "name", "spec"}
    assert options == set(uploading._ALL_OPTIONS)
    assert options == set(UploadOptions.__annotations__) - {"on_progress", "on_reading"}
