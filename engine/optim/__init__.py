"""Optimizers, gradient clipping, gradient accumulation, learning rate schedules, weight averaging."""
