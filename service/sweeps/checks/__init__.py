"""Checks of a sweep: its form, its space and its objective."""
