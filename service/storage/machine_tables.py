"""Tables of the machines: workers, and the folder that they share."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from service.storage.tables import Base


class Worker(Base):
    """A worker process and its last heartbeat."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(String(80), primary_key=True)
    host: Mapped[str] = mapped_column(String(255))
    pid: Mapped[int] = mapped_column(Integer)
    slots: Mapped[int] = mapped_column(Integer)
    running: Mapped[int] = mapped_column(Integer)
    draining: Mapped[bool] = mapped_column(Boolean)
    provenance: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """The provenance of its jobs; NULL until its first child is ready."""
    started_ms: Mapped[int] = mapped_column(BigInteger)
    seen_ms: Mapped[int] = mapped_column(BigInteger)
    blocked: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """Why it claims no jobs, as ``reason`` and ``message``; NULL if its machine is well."""


class Store(Base):
    """The artifact folder, by the id in its file ``store-id``."""

    __tablename__ = "stores"

    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    """Always 1."""
    id: Mapped[str] = mapped_column(String(40))
    host: Mapped[str] = mapped_column(String(255))
    """The machine that registered it."""
    created_ms: Mapped[int] = mapped_column(BigInteger)


class Calibration(Base):
    """Unused: the speed of a machine, as workers of earlier releases measured it."""

    __tablename__ = "calibrations"

    host: Mapped[str] = mapped_column(String(255), primary_key=True)
    factors: Mapped[dict[str, float]] = mapped_column(JSON)
    measured_ms: Mapped[int] = mapped_column(BigInteger)
