"""What every process needs at its start: settings, logs, resource limits, failpoints, task names."""
