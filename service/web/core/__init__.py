"""What every request of a web process shares: settings, database, artifacts, keys, quotas, metrics."""
