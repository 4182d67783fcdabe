"""Datasets."""

from __future__ import annotations

from pydantic import Field

from service.datasets import DatasetInfo, DatasetState
from service.web.schemas.base import Answer


class DatasetItem(Answer):
    """A dataset."""

    name: str
    title: str
    image_shape: list[int]
    classes: int
    train_count: int
    validation_count: int
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
        urls={"self": address} | ({"preview": f"{address}/preview.png"} if info.available else {}),
    )
