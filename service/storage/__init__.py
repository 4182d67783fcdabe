"""The database, its tables, and the artifact store."""
