"""The tables of the model registry: names of trained models, their versions, and where aliases point."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, ForeignKey, Integer, String, UniqueConstraint, false, text
from sqlalchemy.orm import Mapped, mapped_column

from service.storage.tables import Base


class Model(Base):
    """A name under which trained models are registered. Every change of the model locks this row."""

    __tablename__ = "models"
    __table_args__ = (UniqueConstraint("owner", "name"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    owner: Mapped[str] = mapped_column(String(64))
    """Empty without API keys: NULL values would not be unique."""
    name: Mapped[str] = mapped_column(String(64))
    last_version: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    """The highest number that was given; numbers of deleted versions are not used again."""
    created_ms: Mapped[int] = mapped_column(BigInteger)


class ModelVersion(Base):
    """A checkpoint of a job, which never changes. Job and checkpoint are kept as long as the version."""

    __tablename__ = "model_versions"
    __table_args__ = (UniqueConstraint("model_id", "sha256"),)

    model_id: Mapped[str] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"), primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    job_id: Mapped[str] = mapped_column(String(40), index=True)
    kind: Mapped[str] = mapped_column(String(20))
    epoch: Mapped[int] = mapped_column(Integer)
    sha256: Mapped[str] = mapped_column(String(64))
    """Of the checkpoint."""
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    note: Mapped[str | None] = mapped_column(String(2000))
    key_id: Mapped[str | None] = mapped_column(String(40))
    """Of the key that registered it."""
    created_ms: Mapped[int] = mapped_column(BigInteger)


class ModelApproval(Base):
    """The approval of a version by a key. Each key approves once."""

    __tablename__ = "model_approvals"

    model_id: Mapped[str] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"), primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    key_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    owner: Mapped[str] = mapped_column(String(64))
    """Of the key."""
    note: Mapped[str | None] = mapped_column(String(2000))
    created_ms: Mapped[int] = mapped_column(BigInteger)


class ModelAlias(Base):
    """A name for one version at a time. The row stays when the alias is removed, with its gates."""

    __tablename__ = "model_aliases"

    model_id: Mapped[str] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"), primary_key=True)
    alias: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[int | None] = mapped_column(Integer)
    """NULL: it holds none."""
    seq: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    """Of its last move."""
    gates: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    """What a version must meet, as sent, with the defaults."""


class ModelMove(Base):
    """A move of an alias, numbered without gaps. Rows are only ever added."""

    __tablename__ = "model_moves"

    model_id: Mapped[str] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"), primary_key=True)
    alias: Mapped[str] = mapped_column(String(64), primary_key=True)
    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(String(10))
    """``move``, ``rollback`` or ``remove``."""
    from_version: Mapped[int | None] = mapped_column(Integer)
    to_version: Mapped[int | None] = mapped_column(Integer)
    restores: Mapped[int | None] = mapped_column(Integer)
    """Of a rollback: the move whose version the alias holds again."""
    forced: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())
    reason: Mapped[str | None] = mapped_column(String(2000))
    evidence: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    """What each gate found at that time."""
    owner: Mapped[str] = mapped_column(String(64))
    """Of the key that moved it."""
    key_id: Mapped[str | None] = mapped_column(String(40))
    at_ms: Mapped[int] = mapped_column(BigInteger)
