"""From a spec to a network of the engine."""
