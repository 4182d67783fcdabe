"""Results of sweeps and jobs: curves, importance, comparisons, differences and bisections."""
