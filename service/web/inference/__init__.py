"""Inference from checkpoints: the only package of the web process that loads the engine."""
