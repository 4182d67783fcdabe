"""The settings of owners: weight, cap, highest priority and quotas. They belong to the owner, not to a key, and what is
not set has the default of the service's settings (``TAPELINE_OWNER_*``)."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import Integer, func, literal, select, true, update
from sqlalchemy.orm import Session

from service.access import audit
from service.access.audit import Actor, AuditAction
from service.errors import CapExceeded, OwnerNotFound
from service.owner_limits import LIMITS, Quotas
from service.storage.database import Database, locking, now_ms
from service.storage.owner_tables import Owner, OwnerDefaults, OwnerQueue
from service.storage.tables import ApiKey

EVERYBODY: Final = ""
"""The owner of what is created without a key."""
EVERYBODY_ID: Final = "-"
"""The same in requests and responses."""
DEFAULT_MAX_PRIORITY: Final = 5
HIGHEST_PRIORITY: Final = 9
_MAX_SIMILAR: Final = 5
_MAX_COMPARED: Final = 100
"""Characters of a name for which similar ones are found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerLimits:
    """What applies to an owner: their own settings, and the defaults for the rest."""

    weight: float = 1.0
    max_priority: int = HIGHEST_PRIORITY
    quotas: Quotas


def limits(session: Session, owner: str | None, defaults: Quotas) -> OwnerLimits:
    """The limits of an owner; ``None``: everybody without a key, who has none by default."""
    return limits_of(session.get(Owner, owner or EVERYBODY), owner, defaults)


def settings_of(session: Session, names: Collection[str]) -> Mapping[str, Owner]:
    """The settings of owners who have any."""
    return {row.id: row for row in session.scalars(select(Owner).where(Owner.id.in_(names)))}


def limits_of(row: Owner | None, owner: str | None, defaults: Quotas) -> OwnerLimits:
    """The limits of an owner with these settings."""
    quotas = defaults if owner else Quotas(**{limit.setting: 0 for limit in LIMITS if limit.setting})
    highest = DEFAULT_MAX_PRIORITY if owner else HIGHEST_PRIORITY
    if row is None:
        return OwnerLimits(max_priority=highest, quotas=quotas)
    own = {limit.setting: value for limit in LIMITS if limit.setting and (value := row.own(limit.name)) is not None}
    return OwnerLimits(
        weight=row.weight,
        max_priority=highest if row.max_priority is None else row.max_priority,
        quotas=replace(quotas, **own),
    )


def allowed_priority(session: Session, owner: str | None, priority: int) -> int:
    """A job's priority when it is queued: an admin may have lowered the highest one since it was chosen."""
    return min(priority, highest_priority(session, owner))


def highest_priority(session: Session, owner: str | None) -> int:
    """The highest priority of an owner's jobs; ``None``: of everybody without a key."""
    default = DEFAULT_MAX_PRIORITY if owner else HIGHEST_PRIORITY
    return limit_of(session, owner or EVERYBODY, "max_priority", default)


def limit_of(session: Session, owner: str, name: str, default: int) -> int:
    """One limit of an owner: their own, or the default; 0: no limit.

    Raises:
        KeyError: there is no such limit.
    """
    # One column: workers on other machines may not read the others.
    column = getattr(Owner, name) if Owner.has_column(name) else Owner.further_limits
    found = session.scalar(select(column).where(Owner.id == owner))
    own: int | None = found if Owner.has_column(name) else (found or {}).get(name)
    return default if own is None else own


def display_name(session: Session, owner: str) -> str:
    """The name of an owner for people: the id, if there is no other."""
    return display_names(session, [owner]).get(owner, owner)


def display_names(session: Session, ids: Collection[str] | None = None) -> dict[str, str]:
    """The names of owners (``None``: of all) for people, by id, of those who have one."""
    if ids is not None and not ids:
        return {}
    query = select(Owner.id, Owner.display_name).where(Owner.id.in_(ids) if ids is not None else true())
    return {owner: name for owner, name in session.execute(query) if name}


def all_owners(session: Session) -> Sequence[str]:
    """The ids of all owners that are known: by their settings, a key or a job; everybody without a key first."""
    known = select(Owner.id).union(select(ApiKey.owner), select(OwnerQueue.owner))
    return sorted(set(session.scalars(known)) | {EVERYBODY})


def find(session: Session, text: str) -> str:
    """The id of an owner, given its id or its display name in any case; ``-``: everybody without a key.

    Raises:
        OwnerNotFound: no owner has it, or several have the name.
    """
    known, wanted = all_owners(session), folded(text)
    if text in known:
        return text
    if text == EVERYBODY_ID:
        return EVERYBODY
    found = [owner for owner, name in display_names(session).items() if folded(name) == wanted]
    if len(found) == 1:
        return found[0]
    raise OwnerNotFound(text, similar(session, text, known), several=sorted(found))


def similar(session: Session, text: str, known: Collection[str]) -> list[str]:
    """Those of the known owners whose id or name is similar, as ``Özlem (ozlem)``."""
    named, wanted = display_names(session), folded(text)
    texts = {folded(owner): owner for owner in known if owner}
    texts |= {folded(name): owner for owner, name in named.items() if owner in known}
    parts = [text for text in texts if wanted and wanted in text]
    close = difflib.get_close_matches(wanted[:_MAX_COMPARED], texts, n=_MAX_SIMILAR)
    found = list(dict.fromkeys(texts[text] for text in (*parts, *close)))[:_MAX_SIMILAR]
    return [f"{named[owner]} ({owner})" if named.get(owner, owner) != owner else owner for owner in found]


def folded(name: str) -> str:
    """A name as names are compared: in any case, and however its letters are composed."""
    return unicodedata.normalize("NFC", " ".join(name.split())).casefold()


def listed(session: Session) -> Sequence[str]:
    """The ids of all owners by the names that people see; last, everybody without a key, if there are jobs or settings
    of theirs, or nobody else."""
    shown = {owner: owner for owner in all_owners(session)} | display_names(session)
    has_jobs = select(OwnerQueue.owner).where(OwnerQueue.owner == EVERYBODY)
    has_settings = select(Owner.id).where(Owner.id == EVERYBODY)
    people = sorted(shown.keys() - {EVERYBODY}, key=lambda owner: (shown[owner].casefold(), owner))
    shows_everybody = not people or session.scalar(has_jobs.union(has_settings)) is not None
    return [*people, EVERYBODY] if shows_everybody else people


def change(database: Database, owner: str, changes: Mapping[str, Any], *, by: Actor | None = None) -> None:
    """Set some of an owner's settings; ``None`` sets the default again. They take effect within two seconds.

    Raises:
        OwnerNotFound: see ``find``.
        CapExceeded: more jobs run now than a new cap allows.
    """
    with database.write() as session:
        owner = find(session, owner)
        running = session.scalar(select(OwnerQueue.running).where(OwnerQueue.owner == owner)) or 0
        if (cap := changes.get("running_jobs")) is not None and running > cap:
            raise CapExceeded(running, cap)
        row = session.scalar(locking(select(Owner).where(Owner.id == owner)))
        if row is None:
            row = Owner(id=owner, created_ms=session.scalar(select(now_ms())) or 0, weight=1.0)
            session.add(row)
        for name, value in changes.items():
            if name == "display_name":
                row.display_name = value
            else:
                row.change(name, 1.0 if name == "weight" and value is None else value)
        session.flush()
        audit.record(session, by, AuditAction.CHANGE_OWNER, owner or None, **changes)
        copy_to_queue(database, session, owner)


def copy_to_queue(database: Database, session: Session, owner: str) -> None:
    """Copy weight and cap to the row that decides who is served next. Call it last: it locks that row."""
    row = session.get_one(Owner, owner)
    default_cap = session.scalar(select(OwnerDefaults.cap)) if owner else None
    values = {"weight": row.weight, "cap": default_cap if row.running_jobs is None else row.running_jobs}
    copied = database.insert(OwnerQueue).values(owner=owner, **values)
    session.execute(copied.on_conflict_do_update(index_elements=[OwnerQueue.owner], set_=values))


def set_default_cap(database: Database, cap: int) -> None:
    """Set the most running jobs of owners with a key who have no cap of their own; 0: no limit."""
    default = cap or None
    with database.read() as session:
        row = session.get(OwnerDefaults, 1)
        if row is not None and row.cap == default:
            return
    with database.write() as session:
        session.merge(OwnerDefaults(id=1, cap=default))
        own = select(Owner.running_jobs).where(Owner.id == OwnerQueue.owner).scalar_subquery()
        wanted = func.coalesce(own, literal(default, Integer))
        changed = OwnerQueue.owner != EVERYBODY, OwnerQueue.cap.is_distinct_from(wanted)
        # First lock them in the order of names, as a commit that ends jobs of several owners does: with different
        # orders, two transactions would wait for each other.
        session.execute(locking(select(OwnerQueue.owner).where(*changed).order_by(OwnerQueue.owner))).all()
        session.execute(
            update(OwnerQueue).where(*changed).values(cap=wanted), execution_options={"synchronize_session": False}
        )
