"""Worker processes: a supervisor that holds leases, and child processes that train one job at a time."""
