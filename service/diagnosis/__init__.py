"""Rules that find what is wrong with a training, from its metrics alone."""
