"""``make results``: what the presets reach, row by row; see benchmarks/README.md."""
