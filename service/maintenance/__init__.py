"""Maintenance for operators: diagnosis, retention, disk space, backups."""
