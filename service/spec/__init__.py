"""Specs: their schema, presets, validation, layer shapes and costs."""
