"""``python -m workers``: a worker.

Its fork server is forked from it, before it has threads and loads what children do not need.
"""

import os
import sys
from contextlib import suppress
from importlib import import_module


def main() -> int:
    """Run a worker; with another hash seed than that of children, in another program of this process."""
    # Python reads the seed when it starts, unless it ignores the environment.
    if sys.flags.hash_randomization and os.environ.get("PYTHONHASHSEED") != "0":
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - no shell, this very command
    from service.errors import SettingsError
    from service.runtime.settings import Settings
    from workers.supervisor import child_process, fork_server

    import_module("workers.supervisor.supervisor")  # most of it is needed by children, too
    # The worker itself reports invalid settings. If nothing can be forked now, the first child is another attempt.
    with suppress(SettingsError, OSError):
        child_process.prepare(portable_bits=Settings.from_env(os.environ, cores=1).portable_bits)
        fork_server.start()
    from workers.supervisor import worker  # with Celery

    return worker.main()


if __name__ == "__main__":
    sys.exit(main())
