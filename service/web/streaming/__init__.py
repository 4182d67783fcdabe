"""Server-sent events: of one job, and of all jobs."""
