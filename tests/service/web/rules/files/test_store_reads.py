"""Files are read by their rows or fixed names: a list of a bucket takes the longer the more it holds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from service.storage.artifacts import Stored
from service.storage.stores import ArtifactFolder
from tests.service.web.rules.populated import PopulatedService


def test_no_operation_that_reads_lists_the_store(
    populated: PopulatedService, monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests
) -> None:
    listed: list[str | None] = []
    store, list_files = populated.core.artifacts, ArtifactFolder.stored
    assert isinstance(store, ArtifactFolder)
    for job_id in populated.artifacts:
        store.remove_folder(f"{populated.ids[job_id]}/derived")  # drawn by other tests

    def stored(self: ArtifactFolder, folder: str | None = None) -> Iterator[Stored]:
        listed.append(folder)
        return list_files(self, folder)

    monkeypatch.setattr(ArtifactFolder, "stored", stored)
    for operation in populated.operations:
        # The exports of a version are those of its job. Another test of this process needs that none is stored yet.
        if operation.method == "GET" and operation.path != "/models/{reference}/export/{target}":
            listed.clear()
            with subtests.test(str(operation)):
                for values in populated.objects(operation):
                    query = populated.query(operation)
                    populated.admitted(operation).send(operation, values, query_string=query, may_be_no_route=True)
                assert not listed
    kept = [item.path for item in list_files(store) if item.is_derived]
    assert len(kept) > 5, "pictures were drawn and cached"
