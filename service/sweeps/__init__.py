"""Many jobs as one experiment: sweeps over settings, seeds, and comparisons of what came out."""
