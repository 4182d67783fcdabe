"""The steps from the empty database to the schema of today."""
