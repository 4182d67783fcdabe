"""What a user may ask for: the schema of specs, presets, validation, layer shapes, costs."""
