"""Look up models, their versions and aliases, and the versions that a job is registered as. A model belongs to one
owner."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from sqlalchemy import func, select, tuple_
from sqlalchemy.orm import Session

from service.errors import ModelNotFound
from service.features.registry.names import LATEST, NAME
from service.features.registry.tables import Model, ModelAlias, ModelApproval, ModelMove, ModelVersion
from service.runtime import cursors
from service.storage.database import locking

_MAX_NAMED: Final = 20
_KEY: Final = (ModelVersion.model_id, ModelVersion.version)


class Reference(NamedTuple):
    """``digits@champion`` or ``digits:3``."""

    name: str
    alias: str | None
    version: int | None

    @classmethod
    def parse(cls, text: str) -> Reference | None:
        """The parts of a reference; ``None`` if the text is none."""
        name, at, alias = text.partition("@")
        if at:
            return cls(name, alias, None) if name and alias else None
        name, colon, number = text.partition(":")
        is_number = colon and name and number.isascii() and number.isdigit() and len(number) < 10
        return cls(name, None, int(number)) if is_number else None


def find(session: Session, name: str, *, owner: str | None, lock: bool = False, asked: str | None = None) -> Model:
    """A model by its name.

    Args:
        lock: lock the row until the transaction ends.
        asked: what the client asked for, if not just the name.

    Raises:
        ModelNotFound: this owner has no such model.
    """
    query = select(Model).where(Model.owner == (owner or ""), Model.name == name)
    is_possible = NAME.fullmatch(name) is not None  # a database refuses some texts
    row = session.scalar(locking(query) if lock else query) if is_possible else None
    if row is None:
        names = session.scalars(select(Model.name).where(Model.owner == (owner or "")).order_by(Model.name)).all()
        available = f"; available: {', '.join(names[:_MAX_NAMED])}" if names else ": register a version first"
        raise ModelNotFound(f"there is no model {(asked or name)[:80]!r}{available}")
    return row


def version(session: Session, model: Model, number: int) -> ModelVersion:
    """A version by its number.

    Raises:
        ModelNotFound: there is none, or it was deleted.
    """
    row = session.get(ModelVersion, (model.id, number)) if number <= model.last_version else None
    if row is None:
        state = "has been deleted" if 0 < number <= model.last_version else "does not exist"
        raise ModelNotFound(f"version {number} of the model {model.name!r} {state}; the newest is {model.last_version}")
    return row


def latest(session: Session, model: Model) -> ModelVersion:
    """The newest version.

    Raises:
        ModelNotFound: all have been deleted.
    """
    query = select(ModelVersion).where(ModelVersion.model_id == model.id)
    row = session.scalar(query.order_by(ModelVersion.version.desc()).limit(1))
    if row is None:
        raise ModelNotFound(f"the model {model.name!r} has no version: all have been deleted")
    return row


def alias(session: Session, model: Model, name: str) -> ModelAlias:
    """An alias that holds a version, or has gates.

    Raises:
        ModelNotFound: there is none.
    """
    row = session.get(ModelAlias, (model.id, name)) if NAME.fullmatch(name) else None
    if row is None:
        set_aliases = [item.alias for item in aliases(session, [model.id]) if item.version is not None]
        available = f"; available: {', '.join([*set_aliases, LATEST])}"
        raise ModelNotFound(f"the model {model.name!r} has no alias {name[:80]!r}{available}")
    return row


def resolve(session: Session, text: str, *, owner: str | None) -> tuple[Model, ModelVersion]:
    """The version that a reference means now.

    Raises:
        ModelNotFound: it means none.
    """
    reference = Reference.parse(text)
    if reference is None:
        raise ModelNotFound(
            f"{text[:80]!r} names no version of a model: write NAME@ALIAS, NAME@{LATEST} or NAME:NUMBER"
        )
    model = find(session, reference.name, owner=owner, asked=text)
    if reference.version is not None:
        return model, version(session, model, reference.version)
    if reference.alias == LATEST:
        return model, latest(session, model)
    row = alias(session, model, reference.alias or "")
    if row.version is None:
        raise ModelNotFound(f"the alias {row.alias!r} of the model {model.name!r} holds no version now")
    return model, version(session, model, row.version)


def models(
    session: Session, *, owner: str | None, limit: int, cursor: str | None
) -> tuple[Sequence[Model], str | None]:
    """A page of models by name, and the cursor of the next one. ``None`` as the owner: of all."""
    query = select(Model)
    if owner is not None:
        query = query.where(Model.owner == owner)
    if cursor is not None:
        name, model_id = cursors.read(cursor, str, str)
        query = query.where((Model.name > name) | ((Model.name == name) & (Model.id > model_id)))
    rows = session.scalars(query.order_by(Model.name, Model.id).limit(limit + 1)).all()
    shown = rows[:limit]
    return shown, cursors.write([shown[-1].name, shown[-1].id]) if len(rows) > limit else None


def versions(
    session: Session, model: Model, *, limit: int, before: int | None = None
) -> tuple[Sequence[ModelVersion], int | None]:
    """A page of versions, the newest first, and the number at which the next page begins."""
    query = select(ModelVersion).where(ModelVersion.model_id == model.id)
    if before is not None:
        query = query.where(ModelVersion.version < before)
    rows = session.scalars(query.order_by(ModelVersion.version.desc()).limit(limit + 1)).all()
    return rows[:limit], rows[limit - 1].version if len(rows) > limit else None


def aliases(session: Session, model_ids: Collection[str]) -> Sequence[ModelAlias]:
    """The aliases of models by name, those that hold no version included."""
    query = select(ModelAlias).where(ModelAlias.model_id.in_(model_ids))
    return session.scalars(query.order_by(ModelAlias.model_id, ModelAlias.alias)).all()


def moves(
    session: Session, model: Model, name: str, *, limit: int, before: int | None = None
) -> tuple[Sequence[ModelMove], int | None]:
    """A page of the moves of an alias, the newest first, and the number at which the next page begins."""
    query = select(ModelMove).where(ModelMove.model_id == model.id, ModelMove.alias == name)
    if before is not None:
        query = query.where(ModelMove.seq < before)
    rows = session.scalars(query.order_by(ModelMove.seq.desc()).limit(limit + 1)).all()
    return rows[:limit], rows[limit - 1].seq if len(rows) > limit else None


def move(session: Session, model_id: str, name: str, seq: int) -> ModelMove | None:
    """A move of an alias."""
    return session.get(ModelMove, (model_id, name, seq))


def last_held(session: Session, model_id: str, name: str) -> int | None:
    """The number of the version that an alias holds or held last, which may be deleted; ``None``: it never held one."""
    query = select(ModelMove.to_version).where(
        ModelMove.model_id == model_id, ModelMove.alias == name, ModelMove.to_version.is_not(None)
    )
    return session.scalar(query.order_by(ModelMove.seq.desc()).limit(1))


def approvals(session: Session, model_id: str, numbers: Collection[int]) -> Sequence[ModelApproval]:
    """The approvals of versions, the oldest first."""
    query = select(ModelApproval).where(ModelApproval.model_id == model_id, ModelApproval.version.in_(numbers))
    return session.scalars(query.order_by(ModelApproval.version, ModelApproval.created_ms)).all()


def newest(session: Session, model_ids: Collection[str]) -> dict[str, ModelVersion]:
    """The newest version of each model that has any."""
    last = select(ModelVersion.model_id, func.max(ModelVersion.version)).group_by(ModelVersion.model_id)
    query = select(ModelVersion).where(ModelVersion.model_id.in_(model_ids))
    return {row.model_id: row for row in session.scalars(query.where(tuple_(*_KEY).in_(last)))}


def version_counts(session: Session, model_ids: Collection[str]) -> dict[str, int]:
    """The number of versions of each model that has any."""
    query = select(ModelVersion.model_id, func.count()).where(ModelVersion.model_id.in_(model_ids))
    return {row[0]: row[1] for row in session.execute(query.group_by(ModelVersion.model_id))}


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """A version that is a checkpoint of the job."""

    name: str
    version: int
    epoch: int
    aliases: Sequence[str]
    """That hold it now."""

    @property
    def reference(self) -> str:
        """``digits:3``."""
        return f"{self.name}:{self.version}"


def registrations(session: Session, job_id: str) -> list[Registration]:
    """The versions that a job is registered as, by model and number."""
    columns = (Model.id, Model.name, ModelVersion.version, ModelVersion.epoch)
    query = select(*columns).join(ModelVersion, Model.id == ModelVersion.model_id).where(ModelVersion.job_id == job_id)
    rows = session.execute(query.order_by(Model.name, ModelVersion.version)).all()
    held = aliases(session, {row.id for row in rows})
    return [
        Registration(
            name=row.name,
            version=row.version,
            epoch=row.epoch,
            aliases=[item.alias for item in held if (item.model_id, item.version) == (row.id, row.version)],
        )
        for row in rows
    ]
