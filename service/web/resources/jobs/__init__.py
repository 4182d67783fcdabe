"""Routes of jobs and of what belongs to a job."""
