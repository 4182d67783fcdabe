"""Use cases about the results of jobs that exist: compare them, and say why and since when they differ."""
