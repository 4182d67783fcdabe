"""What every process needs before anything else: settings, logs, errors, failpoints, task names."""
