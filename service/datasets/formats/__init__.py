"""Readers of dataset files: IDX and NPZ. They trust no header."""
