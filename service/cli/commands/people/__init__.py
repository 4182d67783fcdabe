"""The commands about the queue, owners and share links."""
