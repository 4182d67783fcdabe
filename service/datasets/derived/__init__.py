"""Built-in datasets that are made from others, the same on every machine."""
