"""What the one who runs the service does with its database and files: look what is wrong, clear up, keep copies."""
