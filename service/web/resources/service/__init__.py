"""Endpoints of the service itself: workers, usage, keys, datasets, limits."""
