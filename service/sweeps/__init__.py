"""Sweeps: many jobs as one experiment over settings and seeds, and comparisons of results."""
