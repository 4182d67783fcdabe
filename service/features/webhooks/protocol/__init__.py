"""How messages are signed, and which addresses may be sent to."""
