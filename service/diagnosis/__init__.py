"""Rules that recognize training failures from the metrics alone."""
