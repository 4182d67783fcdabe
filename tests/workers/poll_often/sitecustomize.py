"""Workers of tests poll the database often: most of them have no broker whose messages would wake them up."""

import sys

if sys.orig_argv[-2:] == ["-m", "workers"]:
    from workers.supervisor import supervisor

    supervisor.DATABASE_POLL_INTERVAL_S = 0.5
