"""Workers of tests poll the database often: most of them have no broker whose messages would wake them up."""

import os
import sys

if sys.orig_argv[-2:] == ["-m", "workers"]:
    from workers.supervisor import supervisor

    supervisor.DATABASE_POLL_INTERVAL_S = 0.5

if os.environ.get("COMMITS_EACH_EPOCH") and "workers" in " ".join(sys.orig_argv):
    from workers.training.epochs import writer

    writer.COMMIT_INTERVAL_S = 0.0
