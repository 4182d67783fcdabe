"""What jobs, sweeps and datasets show in a notebook."""
