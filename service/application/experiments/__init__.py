"""Use cases about the results of existing jobs: compare them, and find why and since when they differ."""
