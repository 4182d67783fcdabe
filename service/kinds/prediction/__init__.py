"""Predictions of whole datasets with a trained model."""
