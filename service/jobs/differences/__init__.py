"""Why two jobs have different results: what is stored, and what a replay of both shows."""
