"""Trained models in the formats of other programs. One module for each format; ``making`` selects it."""
