"""Readers of dataset files: IDX, NPZ, archives of images, and CSV. They treat all files as untrusted."""
