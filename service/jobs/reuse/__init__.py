"""Reuse of an earlier job's results instead of computing them again."""
