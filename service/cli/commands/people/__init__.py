"""The commands about the queue, owners, share links and webhooks."""
