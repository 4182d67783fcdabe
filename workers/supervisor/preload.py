"""The modules that children need; the fork server imports them before the first fork."""

from workers.supervisor import child_process, forking
from workers.training import code, run

__all__ = ["child_process", "run"]

forking.wake_at_parents_death()
code.digest()  # once for all children
