"""Builds engine networks from specs, and exports trained models."""
