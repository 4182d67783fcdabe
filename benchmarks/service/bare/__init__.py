"""The lower bounds of the service's figures: the same work with nothing around it."""
