"""The hash chain over the audit log: how a seal's digest is computed, and how a log is verified against its seals.

No database access here: ``verify`` reads a stream of entries and seals, from ``audit_seals`` or from an
exported file. In the stream, a seal follows the entries that it covers; unsealed entries come last.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

GENESIS: Final = "0" * 64
"""The previous digest of the first seal."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the audit log."""

    id: int
    columns: dict[str, Any]
    """All columns by name, ``id`` included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """One link of the chain, as in the table ``audit_seals``."""

    id: int
    first_id: int
    last_id: int
    count: int
    entries_digest: str
    digest: str
    created_ms: int
    removed_ms: int | None = None


Item = Entry | Seal


@dataclass(slots=True, kw_only=True)
class Verification:
    """The result of verifying a log."""

    seals: int = 0
    entries: int = 0
    """Sealed entries that match their seals."""
    removed_seals: int = 0
    removed_entries: int = 0
    """Entries that retention removed, by the counts in their seals."""
    oldest_ms: int | None = None
    """When the oldest remaining entry was written. Compare it with the retention period: the chain cannot tell whether
    retention was due to remove the entries before it."""
    unsealed: int = 0
    """Entries after the last seal, which are not protected yet."""
    unsealed_since_ms: int | None = None
    """When the first unsealed entry was written."""
    head: str | None = None
    """Digest of the last seal."""
    fault: str | None = None
    """The first mismatch; the counts stop there."""


class Range:
    """Collects the entries of the next seal."""

    def __init__(self, previous: str) -> None:
        self.previous = previous
        self._sha256 = hashlib.sha256()
        self.count = 0
        self.first_id = self.last_id = 0

    def add(self, entry: Entry) -> None:
        """Add the next entry. Ids must increase."""
        self._sha256.update(_canonical(entry.columns))
        self.first_id = self.first_id if self.count else entry.id
        self.last_id = entry.id
        self.count += 1

    def seal(self, number: int, created_ms: int) -> Seal:
        """The seal over the added entries."""
        draft = Seal(
            id=number,
            first_id=self.first_id,
            last_id=self.last_id,
            count=self.count,
            entries_digest=self._sha256.hexdigest(),
            digest="",
            created_ms=created_ms,
        )
        return replace(draft, digest=link_digest(self.previous, draft))


def link_digest(previous: str, seal: Seal) -> str:
    """The digest that a seal must have. It depends on no entries, so the chain can be verified after their removal.

    Args:
        previous: the digest of the seal before it.
    """
    link = {name: value for name, value in asdict(seal).items() if name not in ("digest", "removed_ms")}
    return hashlib.sha256(_canonical(link | {"previous": previous})).hexdigest()


def verify(items: Iterable[Item], *, head: str | None = None) -> Verification:
    """Recompute the chain up to the first fault.

    Args:
        head: the digest of an earlier seal, stored outside the database; one of the seals must have it.
    """
    verifier = _Verifier(head)
    try:
        for item in items:
            verifier.add(item)
        verifier.end()
    except _Mismatch as mismatch:
        verifier.result.fault = str(mismatch)
    return verifier.result


class _Mismatch(Exception):
    """The log does not match its seals."""


class _Verifier:
    def __init__(self, head: str | None) -> None:
        self.result = Verification()
        self._expected_head = head
        self._last: Seal | None = None
        self._range = Range(GENESIS)
        self._since_ms: int | None = None

    def add(self, item: Item) -> None:
        if isinstance(item, Seal):
            self._check_seal(item)
        else:
            self._check_entry(item)

    def end(self) -> None:
        if self._last is not None and self._last.removed_ms is not None:
            raise _Mismatch(f"seal {self._last.id} is marked as removed, but retention keeps the newest range")
        if self._expected_head is not None:
            raise _Mismatch(f"no seal has the digest {self._expected_head}: the chain was rebuilt, or it ends earlier")
        self.result.unsealed, self.result.unsealed_since_ms = self._range.count, self._since_ms

    def _check_entry(self, entry: Entry) -> None:
        if self._range.count and entry.id <= self._range.last_id:
            raise _Mismatch(f"entry {entry.id} follows entry {self._range.last_id}: ids must increase")
        if self._last is not None and entry.id <= self._last.last_id:
            raise _Mismatch(f"entry {entry.id} was added to a sealed range: seal {self._last.id} ends before it")
        at_ms = entry.columns.get("at_ms")
        if not self._range.count:
            self._since_ms = at_ms if isinstance(at_ms, int) else None
        if self.result.oldest_ms is None:
            self.result.oldest_ms = self._since_ms
        self._range.add(entry)

    def _check_seal(self, seal: Seal) -> None:
        number = 1 if self._last is None else self._last.id + 1
        if seal.id != number:
            raise _Mismatch(f"seal {number} is missing: seal {seal.id} is in its place")
        if seal.removed_ms is not None:
            self._check_removed(seal)
        else:
            self._check_intact(seal)
        if seal.digest == self._expected_head:
            self._expected_head = None
        self._last, self._range, self._since_ms = seal, Range(seal.digest), None
        self.result.seals += 1
        self.result.head = seal.digest

    def _check_removed(self, seal: Seal) -> None:
        if self._range.count:
            raise _Mismatch(f"{_describe(seal)} is marked as removed, but entry {self._range.first_id} is there")
        if self._last is not None and self._last.removed_ms is None:
            raise _Mismatch(f"{_describe(seal)} is marked as removed, but the older seal {self._last.id} is not")
        if seal.digest != link_digest(self._range.previous, seal):
            raise _Mismatch(f"{_describe(seal)}, whose entries were removed, was changed: the digest differs")
        self.result.removed_seals += 1
        self.result.removed_entries += seal.count

    def _check_intact(self, seal: Seal) -> None:
        count = self._range.count
        if count < seal.count:
            raise _Mismatch(f"{_describe(seal)}: entries are missing: there are {count} of {seal.count}")
        if count > seal.count:
            raise _Mismatch(f"{_describe(seal)}: entries were added: there are {count} instead of {seal.count}")
        if self._range.seal(seal.id, seal.created_ms) != seal:
            raise _Mismatch(f"{_describe(seal)}: an entry or the seal was changed: the digest differs")
        self.result.entries += count


def _describe(seal: Seal) -> str:
    return f"seal {seal.id} (entries {seal.first_id} to {seal.last_id})"


def _canonical(columns: dict[str, Any]) -> bytes:
    # JSON in ASCII: an unpaired surrogate has no UTF-8 encoding.
    return json.dumps(columns, sort_keys=True, separators=(",", ":")).encode() + b"\n"
