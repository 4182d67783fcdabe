"""Statistics of the columns of a table."""
