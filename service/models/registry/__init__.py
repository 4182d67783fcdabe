"""The model registry: named models with numbered versions, and aliases that move under gates."""
