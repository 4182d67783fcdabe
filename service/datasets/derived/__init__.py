"""Built-in datasets that are generated from others, identically on every machine."""
