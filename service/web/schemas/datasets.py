"""Datasets."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from service.datasets import DatasetInfo, DatasetState
from service.states import DatasetKind
from service.web.schemas.base import Answer


class DatasetItem(Answer):
    """A dataset."""

    name: str
    title: str
    kind: DatasetKind
    image_shape: list[int] = Field(
        description="Rows and columns, and 3 for images in colour; empty: a table, or damaged files."
    )
    columns: list[dict[str, Any]] = Field(description="Columns of a table: their names and types.")
    classes: int
    train_count: int
    validation_count: int
    test_count: int = Field(description="Examples that training never sees and that are scored once at its end.")
    report: dict[str, Any] | None = Field(description="What the import of an upload left out or decided.")
    class_names: list[str]
    source: str
    licence: str
    sha256: str | None
    version: str | None = Field(description="Name of exactly these data, for specs: `mine@1a2b3c4d5e6f`.")
    versions: list[str] = Field(description="All versions with this name, the newest first; `mine` names the newest.")
    available: bool = Field(
        description="Whether its files are available locally; otherwise a worker downloads them for the first job."
    )
    state: DatasetState = Field(
        description="`ready`; `download`: the first job downloads it; `unavailable`: its files are damaged, or a "
        "download "
        "failed within the last day or cannot be stored. Jobs are accepted unless the files are damaged."
    )
    state_reason: str | None = Field(description="Why the dataset is not ready.")
    download_bytes: int | None = Field(description="Download size; null if no download is needed.")
    download_from: list[str] = Field(description="Hosts that a download tries, in order.")
    problem: str | None
    uploaded: bool = Field(
        description="Whether it was uploaded with `POST /datasets`; only uploaded datasets can be deleted."
    )
    urls: dict[str, str]


class DatasetList(Answer):
    """All datasets."""

    data: list[DatasetItem]


def dataset_item(info: DatasetInfo) -> DatasetItem:
    """A dataset for a list."""
    address = f"/datasets/{info.name}"
    return DatasetItem.represent(
        info,
        download_bytes=info.download_bytes or None,
        uploaded=info.upload_id is not None,
        urls={"self": address}
        | ({"preview": f"{address}/preview.png"} if info.available and info.kind is DatasetKind.IMAGES else {}),
    )
