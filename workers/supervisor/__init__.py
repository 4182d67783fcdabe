"""The supervising process: claims jobs, renews leases, watches the processes that train. No NumPy."""
