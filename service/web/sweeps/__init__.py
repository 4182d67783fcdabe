"""Sweeps, and comparisons of jobs: their endpoints, pages, streams and plots."""
