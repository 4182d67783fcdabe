"""Primitives on images (batch, height, width, channels)."""
