"""Neural networks: layers, containers, initializers, losses."""
