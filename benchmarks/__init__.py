"""Measures the engine's speed against a lower bound, a hand-written loop, and PyTorch. Run ``make bench``."""
