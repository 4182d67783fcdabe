"""Why two jobs have different results: comparison of their stored data, and of a replay of both."""
