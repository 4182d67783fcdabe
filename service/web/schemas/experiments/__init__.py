"""Sweeps and comparisons: responses and URL parameters."""
