"""The child process: loads the engine, trains one job, commits its epochs."""
