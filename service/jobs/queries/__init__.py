"""Queries: lists, their columns and sorting, single jobs, the queue, files, statistics."""
