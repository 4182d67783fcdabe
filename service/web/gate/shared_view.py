"""What a share link shows of jobs and sweeps: results, settings and files of the model, but neither private fields nor
other jobs, people and machines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from pydantic import BaseModel

from service.access.shares import Shared
from service.errors import ArtifactNotFound
from service.states import ErrorCode, FindingCode
from service.storage.artifacts import EXPORTS, ArtifactDamaged, ArtifactKind, ArtifactStore
from service.storage.tables import Artifact

M = TypeVar("M", bound=BaseModel)

_HIDDEN: Final = "the message is not shared"

_PRIVATE: Final[Mapping[str, Any]] = {
    "owner": None,
    "note": None,
    "tags": [],
    "starred": False,
    "parent_id": None,
    "reproduction": None,
    "reused_from": None,
    "investigation": None,
    "fold_group": None,
    "provenance": None,
    "mixed_provenance": [],
    "trace_id": None,
}
_SPECS: Final = ("spec", "resolved")
_OF_TRAINING: Final = frozenset({ErrorCode.DIVERGED.value, *(code.value for code in FindingCode)})
"""Codes of errors whose messages name no machine, file or other job."""
_SHOWN_MESSAGES: Final = frozenset({"tested", "stopped_early"})
"""Codes of log lines, likewise."""
_COMMON: Final = frozenset({"job", "seq", "type", "at", "epoch"})
_SHOWN: Final[Mapping[str, frozenset[str]]] = {
    "status": _COMMON | {"status", "requested", "attempt", "lease", "reason", "superseded", "error", "result_digest"},
    "end": _COMMON | {"status", "error", "result_digest"},
    "log": _COMMON | {"level", "code"},
}
"""The fields of events that can have others, by type."""

_FILES: Final = frozenset(
    {
        ArtifactKind.CHECKPOINT.value,
        ArtifactKind.SAMPLE.value,
        *(kind.value for kind, export in EXPORTS.items() if export.is_shown_by_links),
    }
)
"""The kinds of files that a link gives out."""
_MAX_HEADER_BYTES: Final = 2**20
"""Of a checkpoint, as in ``engine.checkpoint``."""


def of_file(row: Artifact, link: Shared | None, store: ArtifactStore) -> Artifact:
    """A file of a job.

    Checkpoints that 0.2.0 has written contain the tags. They are refused and not rewritten: their digest and size are
    in lists, certificates and registered versions.

    Raises:
        ArtifactNotFound: the link does not give it out.
        ArtifactDamaged: it is not a checkpoint.
    """
    if link is None:
        return row
    if row.kind not in _FILES:
        raise ArtifactNotFound(row.job_id, "such file for a share link")
    if row.kind == ArtifactKind.CHECKPOINT and _has_tags(row, store):
        raise ArtifactNotFound(row.job_id, "such checkpoint for a share link: the stored ones contain the job's tags")
    return row


def _has_tags(row: Artifact, store: ArtifactStore) -> bool:
    with store.open(row.path) as file:
        size_bytes = min(int.from_bytes(file.read(8), "little"), _MAX_HEADER_BYTES)
        try:
            return bool(json.loads(json.loads(file.read(size_bytes))["__metadata__"]["spec"]).get("tags"))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ArtifactDamaged(row.path, "its header cannot be read") from error


def of_model(item: M, link: Shared | None) -> M:
    """A job, a sweep or a part of one; ``link``: the share link that permits the request, if one does."""
    if link is None:
        return item
    changes = {name: value for name, value in _PRIVATE.items() if name in type(item).model_fields}
    if "sweep_id" in type(item).model_fields and getattr(item, "sweep_id", None) not in link.ids:
        changes |= {"sweep_id": None, "trial": None}
    changes |= {name: _spec(spec) for name in _SPECS if isinstance(spec := getattr(item, name, None), dict)}
    error = getattr(item, "error", None)
    if error is not None and error.code not in _OF_TRAINING:
        changes["error"] = type(error)(code=error.code, message=_HIDDEN)
    return item.model_copy(update=changes)


def _spec(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A spec, or that of a sweep, whose ``base`` is one."""
    hidden = {"tags", "model"}  # the model of a prediction is that of another job
    shown = {name: value for name, value in spec.items() if name not in hidden}
    return shown | ({"base": _spec(shown["base"])} if isinstance(shown.get("base"), dict) else {})


def of_event(document: Mapping[str, Any], link: Shared | None, *, job_id: str) -> dict[str, Any]:
    """An event of a job."""
    if link is None or (names := _SHOWN.get(document["type"])) is None:
        return dict(document)
    names = names | {"message", "text"} if document.get("code") in _SHOWN_MESSAGES else names
    shown = {name: value for name, value in document.items() if name in names} | {"job": job_id}
    error = shown.get("error")
    if error is not None and error.get("code") not in _OF_TRAINING:
        shown["error"] = {"code": error.get("code"), "message": _HIDDEN}
    return shown
