"""Backups: their format, their rows, the key that signs certificates, and a folder with the newest ones."""
