"""What every process needs at its start: settings, logs, failpoints, task names."""
