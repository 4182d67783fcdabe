"""What the engine costs, beside its floor, a loop written by hand, and PyTorch. Run ``make bench``."""
