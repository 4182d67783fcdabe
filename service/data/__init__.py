"""The data that ship with the package: one folder a data set, read through ``importlib.resources``."""
