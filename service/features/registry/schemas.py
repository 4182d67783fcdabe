"""Responses of the model registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from pydantic import Field

from service import kinds
from service.features.registry.gates.kinds import Finding
from service.features.registry.tables import Model, ModelAlias, ModelApproval, ModelMove, ModelVersion
from service.web.http.schemas import Document, Metrics, ResponseModel, Timestamp


class RemedyItem(ResponseModel):
    """A request that supplies what a gate needs."""

    method: str
    path: str
    body: Document | None


class GateFinding(ResponseModel):
    """What was found when a gate was checked."""

    gate: Document
    passed: bool
    sentence: str = Field(description="The result in words.")
    evidence: Document = Field(description="The numbers and ids on which it is based.")
    remedies: list[RemedyItem] = Field(
        description="Requests that would supply what is missing. Empty: nothing is, or no request would help."
    )


class ApprovalItem(ResponseModel):
    """The approval of a version."""

    owner: str = Field(description="Of the key.")
    key: str = Field(validation_alias="key_id")
    note: str | None
    created_at: Timestamp = Field(validation_alias="created_ms")


class VersionItem(ResponseModel):
    """A version of a model: a checkpoint of a job. It never changes."""

    model: str
    version: int
    reference: str = Field(
        description="Accepted by predict, generate and export, and as `model` of a prediction job: `digits:3`."
    )
    aliases: list[str] = Field(description="That hold it now.")
    job: str = Field(validation_alias="job_id")
    kind: str
    checkpoint: int = Field(validation_alias="epoch", description="The epoch of the checkpoint.")
    sha256: str = Field(description="Of the checkpoint.")
    size_bytes: int
    metrics: Metrics = Field(description="Of the checkpoint's epoch, and of the test part if it was scored with it.")
    note: str | None
    approvals: list[ApprovalItem]
    key: str | None = Field(validation_alias="key_id", description="The key that registered it.")
    created_at: Timestamp = Field(validation_alias="created_ms")
    urls: dict[str, str]

    @classmethod
    def of(
        cls,
        model: Model,
        row: ModelVersion,
        *,
        aliases: Sequence[str],
        approvals: Sequence[ModelApproval],
        metrics: Mapping[str, Any],
    ) -> Self:
        """The response for a version."""
        reference = f"{model.name}:{row.version}"
        use = kinds.of(row.kind).verb
        urls = {
            "self": f"/models/{model.name}/versions/{row.version}",
            "job": f"/jobs/{row.job_id}",
            "checkpoint": f"/jobs/{row.job_id}/checkpoints/{row.epoch}",
            use: f"/models/{reference}/{use}",
            "page": f"/ui/models/{model.name}",
        }
        return cls.from_row(
            row,
            model=model.name,
            reference=reference,
            aliases=list(aliases),
            approvals=[ApprovalItem.from_row(approval) for approval in approvals],
            metrics=dict(metrics),
            urls=urls,
        )


class VersionList(ResponseModel):
    """A page of versions, the newest first."""

    data: list[VersionItem]
    has_more: bool
    next_cursor: str | None


class AliasItem(ResponseModel):
    """A name for one version of a model at a time."""

    model: str
    alias: str
    version: int | None = Field(description="Null: it holds none.")
    reference: str = Field(
        description="Accepted by predict, generate and export, and as `model` of a prediction job: `digits@champion`."
    )
    seq: int = Field(description="Number of its last move, which is also its `ETag`.")
    gates: list[Document] = Field(description="What a version must meet before the alias moves to it.")
    forced: bool = Field(description="Whether the version did not meet the gates when the alias was moved to it.")
    reason: str | None = Field(description="Of the last move.")
    moved_at: Timestamp | None

    @classmethod
    def of(cls, model: Model, row: ModelAlias, move: ModelMove | None) -> Self:
        """The response for an alias and its last move."""
        return cls.from_row(
            row,
            model=model.name,
            reference=f"{model.name}@{row.alias}",
            forced=move is not None and move.forced,
            reason=move.reason if move is not None else None,
            moved_at=move.at_ms if move is not None else None,
        )


class MoveAnswer(AliasItem):
    """An alias after a move, or as it is without one, and what its gates find about the version."""

    moved: bool = Field(description="Whether the alias was moved: not by a dry run, nor to the version that it held.")
    passed: bool = Field(description="Whether the version meets all gates.")
    findings: list[GateFinding]

    @classmethod
    def after(cls, item: AliasItem, findings: Sequence[Finding], *, moved: bool) -> Self:
        """The response for an alias."""
        found = [GateFinding.model_validate(finding.document()) for finding in findings]
        return cls(**dict(item), moved=moved, passed=all(finding.passed for finding in found), findings=found)


class AliasList(ResponseModel):
    """The aliases of a model, by name."""

    data: list[AliasItem]


class ModelItem(ResponseModel):
    """A model, with its aliases."""

    name: str
    owner: str | None = None
    versions: int = Field(description="The number of its versions.")
    latest: int | None = Field(description="The newest version.")
    kind: str | None = Field(description="Of the newest version.")
    metrics: Metrics = Field(description="Of the newest version.")
    aliases: dict[str, int] = Field(description="The versions that aliases hold.")
    created_at: Timestamp = Field(validation_alias="created_ms")

    @classmethod
    def of(
        cls,
        row: Model,
        versions: int,
        newest: ModelVersion | None,
        aliases: Sequence[ModelAlias],
        metrics: Mapping[str, Any],
    ) -> Self:
        """The response for a model; ``aliases`` may have those of others, too."""
        held = {alias.alias: alias.version for alias in aliases if alias.model_id == row.id and alias.version}
        latest, kind = (newest.version, newest.kind) if newest is not None else (None, None)
        facts = {"owner": row.owner or None, "versions": versions, "latest": latest, "kind": kind}
        return cls.from_row(row, **facts, metrics=dict(metrics), aliases=held)


class ModelList(ResponseModel):
    """A page of models, by name."""

    data: list[ModelItem]
    has_more: bool
    next_cursor: str | None


class MoveItem(ResponseModel):
    """A move of an alias."""

    seq: int
    kind: str = Field(description="`move`, `rollback` or `remove`.")
    from_version: int | None
    to_version: int | None
    restores: int | None = Field(description="Of a rollback: the move whose version the alias holds again.")
    forced: bool = Field(description="Whether the version did not meet the gates.")
    reason: str | None
    gates: list[GateFinding] = Field(validation_alias="evidence", description="What each gate found at that time.")
    owner: str = Field(description="Of the key that moved it.")
    key: str | None = Field(validation_alias="key_id")
    at: Timestamp = Field(validation_alias="at_ms")


class MoveList(ResponseModel):
    """A page of the moves of an alias, the newest first. They are numbered without gaps."""

    data: list[MoveItem]
    has_more: bool
    next_cursor: str | None
