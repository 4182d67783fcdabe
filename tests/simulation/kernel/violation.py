"""What a life that went wrong raises."""

from __future__ import annotations


class Violation(AssertionError):
    """An invariant does not hold.

    Args:
        invariant: its short name; a shrunk life must violate the same.
        message: what was found.
    """

    def __init__(self, invariant: str, message: str) -> None:
        super().__init__(f"{invariant}: {message}")
        self.invariant = invariant


def require(condition: object, invariant: str, message: str) -> None:
    """Raise ``Violation`` unless a condition holds."""
    if not condition:
        raise Violation(invariant, message)
