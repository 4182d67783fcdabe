"""The tables of what is known of the stored files beside their rows."""

from __future__ import annotations

from sqlalchemy import BigInteger, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from service.storage.tables import Base


class FileCheck(Base):
    """How far the stored files were read again since the last one began with the first."""

    __tablename__ = "file_checks"

    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    """Always 1."""
    position: Mapped[str | None] = mapped_column(String(80))
    """Of the file that was read last; empty before the first one; ``None`` once all were read."""
    started_ms: Mapped[int] = mapped_column(BigInteger)
    finished_ms: Mapped[int | None] = mapped_column(BigInteger)
    """When all files had been read once; kept until that is so again."""


class DamagedFile(Base):
    """A stored file that was missing or damaged when it was read last. Its row may be deleted by now."""

    __tablename__ = "damaged_files"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    """Of the artifact or the upload."""
    path: Mapped[str] = mapped_column(Text)
    reason: Mapped[str] = mapped_column(Text)
    found_ms: Mapped[int] = mapped_column(BigInteger)
