"""The supervising process: claims jobs, renews leases, monitors the processes that train. It loads no NumPy."""
