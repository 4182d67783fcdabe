"""The tables of owners: what each may use, what each uses, who is served next, and who may sign in."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Computed,
    Float,
    Index,
    Integer,
    String,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from service.owner_limits import BY_NAME
from service.storage.fairness import room
from service.storage.tables import Base


class Owner(Base):
    """The settings of an owner, with the names of the API. NULL: the default of the service's settings."""

    __tablename__ = "owners"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    """As in ``jobs.owner``; empty for everybody without a key."""
    display_name: Mapped[str | None] = mapped_column(String(200))
    weight: Mapped[float] = mapped_column(Float, default=1.0, server_default=text("1"))
    """The share of the slots, relative to other owners."""
    running_jobs: Mapped[int | None] = mapped_column("cap", Integer)
    """The most jobs that run at a time."""
    max_priority: Mapped[int | None] = mapped_column(Integer)
    queued_jobs: Mapped[int | None] = mapped_column("queued", Integer)
    requests_per_minute: Mapped[int | None] = mapped_column("requests", Integer)
    streams: Mapped[int | None] = mapped_column(Integer)
    upload_bytes_per_day: Mapped[int | None] = mapped_column("uploads", BigInteger)
    dataset_bytes: Mapped[int | None] = mapped_column("datasets", BigInteger)
    artifact_bytes: Mapped[int | None] = mapped_column("artifacts", BigInteger)
    cpu_seconds: Mapped[int | None] = mapped_column(BigInteger)
    further_limits: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """Those that have no column, by name: a new limit needs none."""
    created_ms: Mapped[int] = mapped_column(BigInteger)

    @classmethod
    def has_column(cls, name: str) -> bool:
        """Whether a limit has a column of its own.

        Raises:
            KeyError: there is no such limit.
        """
        return BY_NAME[name].name in cls.__mapper__.column_attrs

    def own(self, name: str) -> Any:
        """A limit of the owner's own; ``None``: it has the default.

        Raises:
            KeyError: there is no such limit.
        """
        return getattr(self, name) if self.has_column(name) else (self.further_limits or {}).get(name)

    def change(self, name: str, value: Any) -> None:
        """Set a limit; ``None``: to the default.

        Raises:
            KeyError: there is no such limit.
        """
        if self.has_column(name):
            setattr(self, name, value)
        else:
            given = {**(self.further_limits or {}), name: value}
            self.further_limits = {name: value for name, value in given.items() if value is not None} or None


class OwnerQueue(Base):
    """Who is served next: one row for each owner that has had jobs. Triggers of ``jobs`` keep the counts, so that no
    path of the code can forget them."""

    __tablename__ = "owner_queue"
    __table_args__ = (Index("ix_owner_queue_vtime", "vtime"),)

    owner: Mapped[str] = mapped_column(String(64), primary_key=True)
    """Empty for jobs without an owner."""
    weight: Mapped[float] = mapped_column(Float, default=1.0, server_default=text("1"))
    cap: Mapped[int | None] = mapped_column(Integer)
    """The owner's own, or the default; NULL: no limit."""
    blocked: Mapped[str | None] = mapped_column(String(20))
    """Why none of its jobs is claimed: ``quota``."""
    running: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    queued: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    urgent: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    """The highest priority from 6 on among its queued jobs, or 0."""
    vtime: Mapped[float] = mapped_column(Float, default=0.0, server_default=text("0"))
    """Slot-seconds used up to ``accrued_ms``, each divided by the weight at that time."""
    accrued_ms: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    mean_seconds: Mapped[float] = mapped_column(Float, default=30.0, server_default=text("30"))
    """How long its leases take: an average in which the last five have two thirds of the weight."""
    due: Mapped[float] = mapped_column(Float, Computed("vtime + running * mean_seconds / weight", persisted=True))
    """``vtime`` once the running jobs have ended, as expected."""
    load: Mapped[float] = mapped_column(Float, Computed("running / weight", persisted=True))
    ready: Mapped[bool] = mapped_column(Boolean, Computed(room.READY, persisted=True))
    """Whether it has a queued job and room for it."""


Index(
    "ix_owner_queue_next",
    OwnerQueue.urgent.desc(),
    OwnerQueue.due,
    OwnerQueue.load,
    OwnerQueue.owner,
    sqlite_where=text("ready"),
    postgresql_where=text("ready"),
)


class OwnerDefaults(Base):
    """One row: the settings that a new row of ``owner_queue`` begins with."""

    __tablename__ = "owner_defaults"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    cap: Mapped[int | None] = mapped_column(Integer)


class OwnerUsage(Base):
    """What an owner has used on one day, in UTC. Deleted jobs stay counted."""

    __tablename__ = "owner_usage"

    owner: Mapped[str] = mapped_column(String(64), primary_key=True)
    day: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    """Since 1970-01-01."""
    jobs: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    """That ended."""
    cpu_seconds: Mapped[float] = mapped_column(Float, default=0.0, server_default=text("0"))
    slot_seconds: Mapped[float] = mapped_column(Float, default=0.0, server_default=text("0"))
    """Time for which slots were held: what shares are measured in."""
    bytes: Mapped[int | None] = mapped_column(BigInteger)
    """Of job files and datasets, at the last look of the day."""


class SignInLink(Base):
    """A link that signs a browser in once, in place of typing a key."""

    __tablename__ = "sign_in_links"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64))
    key_id: Mapped[str] = mapped_column(String(40), index=True)
    created_ms: Mapped[int] = mapped_column(BigInteger)
    expires_ms: Mapped[int] = mapped_column(BigInteger)
    used_ms: Mapped[int | None] = mapped_column(BigInteger)


class UploadProgress(Base):
    """An upload that a web process is receiving or reading, with an id from its sender; see ``web/datasets``."""

    __tablename__ = "upload_progress"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    """Of the request: after an interruption, an upload is sent again under the id of its sender."""
    upload: Mapped[str] = mapped_column(String(64), index=True)
    """SHA-256 of the owner and the id of the sender."""
    state: Mapped[str] = mapped_column(String(20))
    received_bytes: Mapped[int] = mapped_column(BigInteger)
    total_bytes: Mapped[int | None] = mapped_column(BigInteger)
    fraction: Mapped[float | None] = mapped_column(Float)
    verdict: Mapped[str | None] = mapped_column(String(10))
    """``cancelled`` or ``stored``; what is written first decides."""
    at_ms: Mapped[int] = mapped_column(BigInteger)
    """When it was last written: a row is not read for long after its process has died."""
