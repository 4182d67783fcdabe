"""Server-sent events of a job, of all jobs, and of a sweep."""
