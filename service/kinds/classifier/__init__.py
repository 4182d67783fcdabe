"""Networks that tell classes apart."""
