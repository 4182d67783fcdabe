"""The start-up of every process: settings, logs, resource limits, failpoints, task names."""
