"""The tables of formats, and the texts that name each of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.cli.commands import inference
from service.datasets.sandbox import FIELDS
from service.storage.artifacts import EXPORTS
from service.web.datasets.uploads import UploadForm
from service.web.models import exports
from tests.service.web.docs import upload_options

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("kind", EXPORTS)
def test_documents_and_help_name_every_export_format(kind: str) -> None:
    rows = [line for line in (ROOT / "docs/exports.md").read_text("utf-8").splitlines() if line.startswith("| `")]
    assert any(row.startswith(f"| `{kind}`") for row in rows)
    assert f"`{kind}`" in (exports.export.__doc__ or "")
    assert kind in (inference.export.help or "")


def test_the_form_of_an_upload_has_the_files_of_every_format() -> None:
    page = (ROOT / "service/web/datasets/templates/index.html").read_text("utf-8")
    for name in FIELDS:
        assert name in UploadForm.model_fields
        assert f'name="{name}"' in page


def test_the_document_has_the_options_of_an_upload() -> None:
    assert upload_options.DOCUMENT.read_text("utf-8") == upload_options.updated(), "write it again: make client"
