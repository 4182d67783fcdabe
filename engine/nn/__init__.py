"""Neural networks: layers, the container that chains them, initial weights, losses."""
