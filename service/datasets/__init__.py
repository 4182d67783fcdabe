"""Datasets: the catalogue, imports, and the data as memory-mapped arrays."""
