"""What the process that forks children loads first: everything that they need."""

from workers import forking
from workers.training import run

__all__ = ["run"]

forking.wake_at_parents_death()
