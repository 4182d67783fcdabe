"""The life of a job: user actions, leases, rescue, events."""
