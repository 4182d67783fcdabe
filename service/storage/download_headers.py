"""The headers with which the service, or an object store by itself, serves the files of jobs."""

from __future__ import annotations

import re
from typing import Final

from service.storage.artifacts import MEDIA_TYPES, SUFFIXES, ArtifactKind

_PATH: Final = re.compile(rf"(\w+)/({'|'.join(ArtifactKind)})/(\d+)-.*")


def disposition(job_id: str, kind: str, epoch: int) -> str:
    """``Content-Disposition``, with the name under which a client saves a file."""
    suffix = SUFFIXES[ArtifactKind(kind)]
    return f'attachment; filename="{job_id}-epoch-{epoch:04d}{f"-{kind}" if suffix == "zip" else ""}.{suffix}"'


def headers_of(path: str) -> dict[str, str]:
    """The headers of the file that has a path in a store; empty for other files than those of jobs."""
    if (match := _PATH.fullmatch(path)) is None:
        return {}
    job_id, kind, epoch = match.groups()
    disposed = disposition(job_id, kind, int(epoch))
    return {"Content-Type": MEDIA_TYPES[ArtifactKind(kind)], "Content-Disposition": disposed}
