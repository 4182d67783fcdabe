"""The faults of a life: which kinds happen, and how often."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Self

from tests.simulation.kernel.tape import Tape


class Fault(Enum):
    """What can go wrong."""

    CRASH = auto()
    """A process is killed at a point, a transaction included."""
    FREEZE = auto()
    """A process sleeps, perhaps past its lease."""
    COMA = auto()
    """A process sleeps while it sends a message, until another one has the message."""
    SLOW = auto()
    REFUSED = auto()
    """A transaction, or a request to the store, fails and has no effect; the caller cannot know."""
    LOST_ANSWER = auto()
    """A transaction was committed, or an object stored, and the caller is told of an error."""
    MACHINE = auto()
    """All processes of a machine die; or it is cut off from the database."""
    OUTAGE = auto()
    """Nobody reaches the database, or it accepts no writes."""
    STORE = auto()
    """Nobody reaches the store."""
    CLOCKS = auto()
    """The database's clock jumps, and those of processes are wrong."""
    SLEEP = auto()
    """Everything sleeps together."""
    RESTORE = auto()
    """The database goes back to an earlier state, below running workers."""
    ORDERS = auto()
    """Operators drain and stop workers, and restart processes."""
    RECEIVERS = auto()
    """Receivers of messages fail, are silent, or answer twice."""
    MOVE = auto()
    """The service moves to another store."""


_FOCI: Final = (
    {Fault.RESTORE},
    {Fault.MACHINE},
    {Fault.OUTAGE},
    {Fault.STORE},
    {Fault.ORDERS},
    {Fault.CRASH, Fault.FREEZE},
)
"""The kinds of faults of focused lives: among many kinds, the one that reveals a bug is rare or hidden by another."""


@dataclass(frozen=True, slots=True)
class Climate:
    """The faults of one life. Each life has some kinds only: one kind would hide what another finds."""

    kinds: frozenset[Fault]
    gap: float
    """The mean number of points between two faults at points."""

    @classmethod
    def draw(cls, tape: Tape) -> Self:
        """The climate of a life; zeros on the tape mean none."""
        has_focus = tape.draw(3) == 2
        kinds = _FOCI[tape.draw(len(_FOCI))] if has_focus else {fault for fault in Fault if tape.draw(5) > 2}
        return cls(frozenset(kinds), (300.0, 60.0, 20.0)[tape.draw(3)])

    def has(self, fault: Fault) -> bool:
        """Whether this kind happens."""
        return fault in self.kinds
