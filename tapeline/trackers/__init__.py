"""Jobs in the stores of experiment trackers, logged from the machine of the client."""
