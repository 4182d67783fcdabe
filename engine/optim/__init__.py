"""Optimizers, gradient clipping, learning-rate schedules, averages of weights."""
