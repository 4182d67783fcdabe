"""Presets: named sets of defaults, and their adaptation to datasets of other shapes."""
