"""The speed and memory of a training step of the engine, compared with a lower bound, by hand, PyTorch and JAX."""
