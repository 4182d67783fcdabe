"""The table of share links."""

from __future__ import annotations

from sqlalchemy import BigInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from service.storage.tables import Base


class Share(Base):
    """A link with which anybody may read one job, sweep or comparison."""

    __tablename__ = "shares"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    """The public part of the token."""
    digest: Mapped[str] = mapped_column(String(64))
    """SHA-256 of the complete token."""
    owner: Mapped[str | None] = mapped_column(String(64), index=True)
    path: Mapped[str] = mapped_column(String(2000))
    """``/jobs/ID``, ``/sweeps/ID`` or ``/comparisons?...``."""
    created_ms: Mapped[int] = mapped_column(BigInteger)
    expires_ms: Mapped[int | None] = mapped_column(BigInteger)
    revoked_ms: Mapped[int | None] = mapped_column(BigInteger)
