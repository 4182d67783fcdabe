"""The child process: loads the engine, trains a job, commits its epochs."""
