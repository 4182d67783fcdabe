"""The requirements of a spec, computed from the spec alone: layer shapes, memory, operations."""
