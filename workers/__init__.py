"""Worker processes: a supervisor that holds leases, and one child process per job that trains."""
