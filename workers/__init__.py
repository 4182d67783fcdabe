"""Processes that train: a supervisor that holds leases, and one child process a job that runs the engine."""
