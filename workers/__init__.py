"""Processes that train: a supervisor that holds leases, and one spawned child a job that runs the engine."""
