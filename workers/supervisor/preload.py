"""The modules that children need; the fork server imports them before the first fork."""

import gc

from service import hooks, kinds
from service.kinds import rooms
from workers.supervisor import child_process, fork_server
from workers.training import child, code_digest

__all__ = ["child", "child_process"]

fork_server.wake_at_parents_death()
for kind in kinds.ALL:
    for name in ("training", "model") if kind.trains else ("work",):
        rooms.room(kind.name, name)
code_digest.digest()  # once for all children
hooks.load()  # likewise
gc.freeze()  # children share these pages: a collection in one of them would copy them
