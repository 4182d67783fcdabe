"""Measures the performance of the service: ``python -m benchmarks.service``."""
