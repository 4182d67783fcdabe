"""Queries: lists, their columns and sort orders, single jobs, the queue, files, statistics."""
