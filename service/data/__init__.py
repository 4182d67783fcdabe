"""The data that ship with the package: one folder a dataset, read through ``importlib.resources``."""
