"""What is done with trained networks, of jobs and of models."""
