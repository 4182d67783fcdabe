from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from workers.channel import Child


def test_a_child_that_is_ended_by_many_threads_at_once_is_ended_once() -> None:
    """As a fence does it, while the thread that watches does it too."""
    together = threading.Barrier(8)

    def end(child: Child) -> None:
        together.wait()
        child.close()

    for _ in range(50):
        child = Child()
        with ThreadPoolExecutor(together.parties) as threads:
            list(threads.map(end, [child] * together.parties))  # raises what any of them raised
        assert not child.alive
