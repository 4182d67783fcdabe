"""``python -m tests.simulation``: runs lives for some seconds of processor time, repeats one, or hunts planted bugs."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack

from tests.simulation import planting


def main(arguments: list[str]) -> int:
    """Run; 1: an invariant was violated, a branch was never reached, or a planted bug was not found."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="processor time (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the first life (default: %(default)s)")
    parser.add_argument("--once", action="store_true", help="run the life of the seed, and print what happens")
    parser.add_argument(
        "--postgresql", action="store_true", help="on a PostgreSQL server, where transactions interleave"
    )
    parser.add_argument("--plant", metavar="BUG", help="plant a bug first")
    parser.add_argument("--planted", action="store_true", help="hunt every planted bug")
    parser.add_argument("--no-shrinking", action="store_true", help="print the seed of a failure only")
    given = parser.parse_args(arguments)
    if given.planted:
        return planting.hunt_all(given.seconds)
    if given.plant is not None:
        planting.plant(given.plant)
    # Not at the top: a bug is planted in modules that are not loaded.
    from tests.simulation import runs

    with ExitStack() as stack:
        memory = None
        if given.postgresql:
            from tests.simulation import servers

            memory = stack.enter_context(servers.postgresql())
        if given.once:
            return runs.repeat(given.seed, memory)
        return runs.run(
            given.seconds, given.seed, memory, is_hunt=given.plant is not None, shrinks=not given.no_shrinking
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
