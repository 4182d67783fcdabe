"""Speed and memory of the engine's training steps, compared with a floor, a hand-written loop, PyTorch and JAX."""
