"""Networks that predict a number."""
