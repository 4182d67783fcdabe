"""Webhooks: signed messages to the addresses that owners register, about what happens to their objects."""
