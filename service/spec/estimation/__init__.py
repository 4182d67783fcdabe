"""What a spec needs, from the spec alone: layer shapes, memory, operations."""
