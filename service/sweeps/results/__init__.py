"""Results of sweeps, and comparisons: curves, importance, the best trial."""
