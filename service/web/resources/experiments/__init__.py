"""Sweeps and comparisons."""
