"""Backups: their format, their rows, the key that signs certificates, and a folder with the newest ones.

A backup is rows and files, not a dump: the embedded stack has SQLite and compose PostgreSQL, and rows must agree with
files that running jobs remove. It is slower than the databases' own tools, which large services should use, and needs
temporary space for the rows.
"""
