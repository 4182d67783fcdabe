"""A share link gives out no file with the tags of a job, its environment or examples of its dataset."""

from __future__ import annotations

import io
import zipfile
from contextlib import closing

import pytest

from service.jobs.queries import lookup
from service.storage.artifacts import EXPORTS, ArtifactKind
from tests.service.web.rules.operations import Caller
from tests.service.web.rules.populated import SECRET, PopulatedService

PRIVATE = f"{SECRET}-tag".encode()
JOBS = ("classifier", "gan", "table", "regressor")


def content(data: bytes) -> bytes:
    """A file, unpacked if it is an archive."""
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return data
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return b"".join(archive.read(name) for name in archive.namelist())


@pytest.mark.parametrize("name", JOBS)
def test_no_file_behind_a_link_has_the_tags_of_its_job(
    populated: PopulatedService, name: str, subtests: pytest.Subtests
) -> None:
    job_id, client = populated.ids[name], Caller(populated.app, None).client

    def get(path: str, key: str | None) -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {key}"}
        with closing(client.get(f"/jobs/{job_id}/{path}", headers=headers)) as answer:
            return answer.status_code, content(answer.data)

    own = populated.callers["ann"].key
    made = [kind for kind in EXPORTS if EXPORTS[kind].missing is None and get(f"export/{kind}", own)[0] == 200]
    assert {ArtifactKind.HUGGINGFACE, ArtifactKind.TORCH} <= {*made}
    link = populated.post("ann", "/shares", {"path": f"/jobs/{job_id}"})["token"]
    with populated.core.database.read() as session:
        kinds = {f"artifacts/{row.id}": row.kind for row in lookup.artifacts(session, job_id)}
    shown = set()
    for path in (
        *(f"checkpoints/{epoch}" for epoch in ("best", "latest", "1")),
        *kinds,
        *(f"export/{k}" for k in made),
    ):
        with subtests.test(path):
            status, data = get(path, link)
            assert status in (200, 401, 404)
            if status == 200:
                shown.add(path)
                assert PRIVATE not in data
    is_older = name == "table"  # its checkpoints are as 0.2.0 has written them
    assert ("checkpoints/best" in shown, "export/torch" in shown) == (not is_older, True)
    assert not {"export/huggingface", "export/tensorboard", "export/certificate"} & shown
    found = {kinds[path] for path in kinds.keys() & shown}
    assert found <= {ArtifactKind.CHECKPOINT, ArtifactKind.SAMPLE, ArtifactKind.ONNX, ArtifactKind.TORCH}
    assert (found >= {ArtifactKind.CHECKPOINT, ArtifactKind.SAMPLE}) == (name == "gan")
