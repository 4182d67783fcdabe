"""The database, its tables, and the store of artifacts."""
