"""The commands about the queue and owners."""
