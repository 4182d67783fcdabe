"""Evaluation: metrics of classifiers, metrics of generated images, diagnostics of a training."""
