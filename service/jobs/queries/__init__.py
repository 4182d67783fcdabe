"""Reading jobs: lists, their columns and orders, the queue, files, statistics."""
