"""The job lifecycle: user actions, leases, rescue, events."""
