"""The end of an epoch: its snapshot, and its commit while the next epoch is trained."""
