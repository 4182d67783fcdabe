"""Which settings a trial gets."""
