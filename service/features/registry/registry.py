"""Use cases of the model registry: register versions, approve them, move aliases under gates, roll back, delete."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Final

from pydantic import Field, StringConstraints
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from service import hooks
from service.access import audit, keys
from service.access.audit import Actor
from service.errors import Busy, Fault, ModelNotFound, SpecError
from service.features.registry import gates, queries
from service.features.registry.actions import ModelAction
from service.features.registry.errors import (
    AliasMoved,
    GateFailed,
    ModelGuarded,
    NoEarlierVersion,
    NotApprovable,
    VersionInUse,
)
from service.features.registry.gates import Gate
from service.features.registry.gates.kinds import Finding
from service.features.registry.names import LATEST, NAME, is_reserved
from service.features.registry.tables import Model, ModelAlias, ModelApproval, ModelMove, ModelVersion
from service.hooks import Happening, HappeningKind
from service.jobs.queries import lookup
from service.jobs.request_bodies import Note, Which
from service.spec.schema import StrictModel
from service.storage.artifacts import ArtifactStore
from service.storage.database import Database, locking, now_ms
from service.storage.ids import new_id
from service.storage.tables import Job

_MAX_EVALUATIONS: Final = 100
"""How often gates are checked again because something changed in between."""


class VersionRequest(StrictModel):
    """A checkpoint to register."""

    EXAMPLES: ClassVar = {"best": {"job": "job_01J00000000000000000000000", "checkpoint": "best"}}

    job: Annotated[str, StringConstraints(max_length=40)]
    """The id of the job."""
    checkpoint: Which = "best"
    note: Note | None = None
    """Free text."""


class MoveRequest(StrictModel):
    """Where an alias shall point."""

    EXAMPLES: ClassVar = {
        "move": {"version": 3, "reason": "better on small digits"},
        "force": {"version": 3, "force": True, "reason": "the champion fails on the new camera"},
    }

    version: Annotated[int, Field(ge=1, lt=10**9)]
    force: bool = False
    """Move it although gates fail. Needs the scope `admin` and a `reason`, and stays visible in the history."""
    reason: Note | None = None
    """Why it is moved."""


class RollbackRequest(StrictModel):
    """A rollback of an alias to the version that it held before."""

    EXAMPLES: ClassVar = {"back": {"reason": "wrong answers since noon"}}

    reason: Note | None = None
    """Why it is rolled back."""


class ApprovalRequest(StrictModel):
    """The approval of a version by another key than the one that registered it."""

    EXAMPLES: ClassVar = {"checked": {"note": "looked at the mistakes"}}

    note: Note | None = None
    """What was checked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """What the gates of an alias find about a version, and all that this depends on."""

    findings: Sequence[Finding]
    basis: object

    @property
    def passed(self) -> bool:
        """Whether all gates are met."""
        return all(finding.passed for finding in self.findings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """An alias after a move, and what the gates found."""

    version: int | None
    moved: bool = True
    """Whether it held another version before."""
    findings: Sequence[Finding] = field(default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """Operations on models.

    ``owner`` is whose model it is, ``by`` who acts: an admin may act on models of others.
    """

    database: Database
    artifacts: ArtifactStore

    def register(
        self, name: str, request: VersionRequest, *, owner: str | None = None, by: Actor | None = None
    ) -> tuple[Model, ModelVersion, bool]:
        """Register a checkpoint of a job as the next version of a model, which is created with its first one.

        Returns:
            The model, the version, and whether it is new: a checkpoint with the same bytes is the same version.

        Raises:
            SpecError: the name is not valid.
            JobNotFound, ArtifactNotFound: the job or its checkpoint does not exist.
        """
        with self.database.write() as session:
            # The job first: commits and deletions lock it, too, so its checkpoint stays.
            session.execute(locking(select(Job.id).where(Job.id == request.job)))
            job = lookup.get(session, request.job, owner=owner)
            _require_model_name(name)
            checkpoint = lookup.checkpoint(session, job, request.checkpoint)
            now = session.scalar(select(now_ms())) or 0
            values = {"id": new_id("mdl"), "owner": owner or "", "name": name, "created_ms": now}
            session.execute(self.database.insert(Model).values(values).on_conflict_do_nothing())
            model = queries.find(session, name, owner=owner, lock=True)
            same = (ModelVersion.model_id == model.id, ModelVersion.sha256 == checkpoint.sha256)
            existing = session.scalar(select(ModelVersion).where(*same))
            if existing is not None:
                return model, existing, False
            model.last_version += 1
            version = ModelVersion(
                model_id=model.id,
                version=model.last_version,
                job_id=job.id,
                kind=job.kind,
                epoch=checkpoint.epoch,
                sha256=checkpoint.sha256,
                size_bytes=checkpoint.size_bytes,
                note=request.note or None,
                key_id=by.key_id if by is not None else None,
                created_ms=now,
            )
            session.add(version)
            subject = f"{name}:{version.version}"
            audit.record(session, by, ModelAction.REGISTER, subject, job=job.id, epoch=version.epoch)
            return model, version, True

    def approve(
        self, name: str, number: int, request: ApprovalRequest, *, owner: str | None = None, by: Actor | None = None
    ) -> None:
        """Approve a version. A second approval by the same key, or by one that a rotation put in its place, changes
        nothing.

        Raises:
            ModelNotFound: there is no such version.
            NotApprovable: the key registered it, or there are no keys.
        """
        if by is None or by.key_id is None:
            raise NotApprovable("approvals need keys, which tell people apart: this service does not require any")
        with self.database.write() as session:
            model = queries.find(session, name, owner=owner, lock=True)
            version = queries.version(session, model, number)
            own = keys.same_key(session, by.key_id)
            if version.key_id in own:
                raise NotApprovable(f"{name}:{number} was registered with this key: somebody else has to approve it")
            if any(row.key_id in own for row in queries.approvals(session, model.id, [number])):
                return
            row = ModelApproval(model_id=model.id, version=number, key_id=by.key_id, owner=by.owner or "")
            row.note, row.created_ms = request.note or None, session.scalar(select(now_ms())) or 0
            session.add(row)
            audit.record(session, by, ModelAction.APPROVE, f"{name}:{number}")

    def evaluate(self, name: str, alias: str, number: int, *, owner: str | None = None) -> Evaluated:
        """Check a version against the gates of an alias, without moving it.

        Raises:
            ModelNotFound: there is no such version.
        """
        with self.database.read() as session:
            model = queries.find(session, name, owner=owner)
            _require_alias(alias)
            version = queries.version(session, model, number)
            conditions = _gates_of(session, model, alias)
            findings = gates.check(session, self.artifacts, model, version, conditions, owner=owner)
            return Evaluated(findings=findings, basis=_basis(session, model, conditions))

    def try_out(self, name: str, alias: str, request: MoveRequest, *, owner: str | None = None) -> Moved:
        """What a move would find; nothing is moved."""
        return Moved(
            version=None, moved=False, findings=self.evaluate(name, alias, request.version, owner=owner).findings
        )

    def move(
        self,
        name: str,
        alias: str,
        request: MoveRequest,
        *,
        seen: Collection[int] | None = None,
        owner: str | None = None,
        by: Actor | None = None,
    ) -> Moved:
        """Move an alias to a version that meets its gates, or, with ``force``, to any. To the version that it holds
        already is no move.

        Args:
            seen: the moves after which the client expects the alias; ``None``: any.

        Raises:
            SpecError: the alias is reserved or not valid, or ``force`` has no reason.
            ModelNotFound: there is no such version.
            AliasMoved: it was moved since ``seen``.
            GateFailed: the version does not meet its gates.
        """
        if request.force and not (request.reason or "").strip():
            detail = "a forced move needs a reason: it stays in the history"
            raise SpecError([Fault(pointer="#/reason", detail=detail, code="missing")])
        for _ in range(_MAX_EVALUATIONS):
            evaluated = self.evaluate(name, alias, request.version, owner=owner)
            with self.database.write() as session:
                model = queries.find(session, name, owner=owner, lock=True)
                queries.version(session, model, request.version)
                row = _lock_alias(session, model, alias)
                _require_seen(row, seen)
                if row.version == request.version:
                    return Moved(version=row.version, moved=False, findings=evaluated.findings)
                if _basis(session, model, row.gates) != evaluated.basis:
                    continue  # something was changed since the evaluation, which takes too long for this transaction
                documents = [finding.document() for finding in evaluated.findings]
                if not evaluated.passed and not request.force:
                    raise GateFailed(f"{name}:{request.version}", alias, documents)
                forced = request.force and not evaluated.passed
                move = ModelMove(kind="move", to_version=request.version, forced=forced, evidence=documents)
                _append(session, model, row, move, reason=request.reason, by=by)
                return Moved(version=row.version, findings=evaluated.findings)
        raise Busy("busy", f"the gates of {name}@{alias} change all the time: try again", 1)

    def roll_back(
        self,
        name: str,
        alias: str,
        request: RollbackRequest,
        *,
        seen: Collection[int] | None = None,
        owner: str | None = None,
        by: Actor | None = None,
    ) -> Moved:
        """Move an alias back to the version that it held before. Another rollback goes further back.

        The gates are not checked again: evidence and ``forced`` are those of the move that is restored.

        Raises:
            ModelNotFound: there is no such alias.
            AliasMoved: it was moved since ``seen``.
            NoEarlierVersion: it held no other version before, or none that still exists.
        """
        with self.database.write() as session:
            model = queries.find(session, name, owner=owner, lock=True)
            row = queries.alias(session, model, alias)
            _require_seen(row, seen)
            earlier = _move_to_restore(session, model, row)
            move = ModelMove(kind="rollback", to_version=earlier.to_version, restores=earlier.restores or earlier.seq)
            move.evidence, move.forced = earlier.evidence, earlier.forced
            _append(session, model, row, move, reason=request.reason, by=by)
            return Moved(version=row.version)

    def remove_alias(
        self,
        name: str,
        alias: str,
        *,
        seen: Collection[int] | None = None,
        owner: str | None = None,
        by: Actor | None = None,
    ) -> None:
        """Let an alias hold no version. Its gates and history stay.

        Raises:
            ModelNotFound: there is no such alias, or it holds none.
            AliasMoved: it was moved since ``seen``.
        """
        with self.database.write() as session:
            model = queries.find(session, name, owner=owner, lock=True)
            row = queries.alias(session, model, alias)
            _require_seen(row, seen)
            if row.version is None:
                raise ModelNotFound(f"the alias {alias!r} of the model {name!r} holds no version")
            _append(session, model, row, ModelMove(kind="remove", to_version=None, evidence=[]), reason=None, by=by)

    def change_gates(
        self, name: str, alias: str, new: Sequence[Gate], *, owner: str | None = None, by: Actor | None = None
    ) -> None:
        """Set the gates of an alias, which need not hold a version. The version that it holds is not checked.

        Raises:
            SpecError: the alias is reserved or not valid.
            ModelNotFound: there is no such model.
        """
        with self.database.write() as session:
            model = queries.find(session, name, owner=owner, lock=True)
            row = _lock_alias(session, model, alias)
            row.gates = [gate.document() for gate in new]
            audit.record(session, by, ModelAction.CHANGE_GATES, f"{name}@{alias}", gates=row.gates)

    def delete_version(self, name: str, number: int, *, owner: str | None = None, by: Actor | None = None) -> None:
        """Delete a version; its job can be deleted then. Its number is not used again.

        Raises:
            ModelNotFound: there is no such version.
            VersionInUse: an alias holds it.
        """
        with self.database.write() as session:
            model = queries.find(session, name, owner=owner, lock=True)
            version = queries.version(session, model, number)
            held = [row.alias for row in queries.aliases(session, [model.id]) if row.version == number]
            if held:
                raise VersionInUse(f"{name}:{number}", held)
            session.delete(version)
            same = (ModelApproval.model_id == model.id, ModelApproval.version == number)
            session.execute(delete(ModelApproval).where(*same))
            audit.record(session, by, ModelAction.DELETE_VERSION, f"{name}:{number}", job=version.job_id)

    def delete(self, name: str, *, owner: str | None = None, by: Actor | None = None) -> None:
        """Delete a model with its versions and history. The jobs stay.

        Raises:
            ModelNotFound: there is no such model.
            VersionInUse: an alias holds one of its versions.
            ModelGuarded: an alias has gates. Whoever may not change them could otherwise make the model anew, without.
        """
        with self.database.write() as session:
            model = queries.find(session, name, owner=owner, lock=True)
            rows = queries.aliases(session, [model.id])
            if held := [row.alias for row in rows if row.version is not None]:
                raise VersionInUse(f"the model {name!r}", held)
            if guarded := [row.alias for row in rows if row.gates]:
                raise ModelGuarded(name, guarded)
            audit.record(session, by, ModelAction.DELETE_MODEL, name, versions=model.last_version)
            session.execute(
                delete(Model).where(Model.id == model.id)
            )  # and, by the foreign keys, all that belongs to it


def _require_name(name: str, pointer: str) -> None:
    if NAME.fullmatch(name) is None:
        detail = (
            "must be 1 to 64 lower-case letters, digits, dots, dashes and underscores, with none of these at an end"
        )
        raise SpecError([Fault(pointer=pointer, detail=detail, code="invalid")])


def _require_model_name(name: str) -> None:
    _require_name(name, "#/name")
    if name.startswith("job_"):
        detail = "could be taken for the id of a job: choose another name"
        raise SpecError([Fault(pointer="#/name", detail=detail, code="reserved")])


def _require_alias(alias: str) -> None:
    _require_name(alias, "#/alias")
    if is_reserved(alias):
        what = "is always the newest version" if alias == LATEST else "could be taken for the number of a version"
        raise SpecError([Fault(pointer="#/alias", detail=f"{alias!r} {what}: choose another alias", code="reserved")])


def _require_seen(row: ModelAlias, seen: Collection[int] | None) -> None:
    if seen is not None and row.seq not in seen:
        raise AliasMoved(row.alias, row.version, row.seq)


def _gates_of(session: Session, model: Model, alias: str) -> Sequence[Mapping[str, Any]]:
    row = session.get(ModelAlias, (model.id, alias))
    return row.gates if row is not None else []


def _basis(session: Session, model: Model, conditions: Sequence[Mapping[str, Any]]) -> object:
    """What a check of gates depends on, besides jobs: the gates, and the versions that aliases in them hold."""
    named = {str(gate.get("better_than", "")).removeprefix("@") for gate in conditions}
    held = {row.alias: (row.version, row.seq) for row in queries.aliases(session, [model.id]) if row.alias in named}
    return list(conditions), held


def _lock_alias(session: Session, model: Model, alias: str) -> ModelAlias:
    """The row of an alias, which is created if need be. The model is locked."""
    _require_alias(alias)
    row = session.get(ModelAlias, (model.id, alias), populate_existing=True)
    if row is None:
        row = ModelAlias(model_id=model.id, alias=alias, version=None, seq=0, gates=[])
        session.add(row)
    return row


def _append(
    session: Session, model: Model, row: ModelAlias, move: ModelMove, *, reason: str | None, by: Actor | None
) -> None:
    """Record a move, and carry it out."""
    move.model_id, move.alias, move.seq = model.id, row.alias, row.seq + 1
    move.from_version, move.reason = row.version, reason or None
    move.owner = (by.owner if by is not None else None) or ""
    move.key_id = by.key_id if by is not None else None
    move.at_ms = session.scalar(select(now_ms())) or 0
    row.version, row.seq = move.to_version, move.seq
    session.add(move)
    detail = {"from": move.from_version, "to": move.to_version, "kind": move.kind}
    detail |= {"forced": True, "reason": move.reason} if move.forced and move.kind == "move" else {}
    reference = f"{model.name}@{row.alias}"
    audit.record(session, by, ModelAction.MOVE_ALIAS, reference, **detail)
    message: dict[str, Any] = {"id": reference, "url": f"/models/{model.name}", "name": model.name, "status": move.kind}
    message |= {"alias": row.alias, "from": move.from_version, "to": move.to_version, "forced": move.forced}
    message |= {"reason": move.reason, "seq": move.seq}
    hooks.happened(session, Happening(kind=HappeningKind.ALIAS_MOVED, owner=model.owner or None, data=message))


def _move_to_restore(session: Session, model: Model, row: ModelAlias) -> ModelMove:
    """The move whose version a rollback restores: the last one before that of the present version, of another version
    that still exists."""
    current = queries.move(session, model.id, row.alias, row.seq)
    begin = (current.restores or current.seq) if current is not None else 0
    for seq in range(begin - 1, 0, -1):
        move = queries.move(session, model.id, row.alias, seq)
        if move is None or move.to_version in (None, row.version):
            continue
        if session.get(ModelVersion, (model.id, move.to_version)) is not None:
            return move
    raise NoEarlierVersion(f"the alias {row.alias!r} of the model {model.name!r} held no other version before")
