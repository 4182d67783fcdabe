"""``make results``: measures the quality of the presets; see benchmarks/README.md."""
