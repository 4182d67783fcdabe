"""Search algorithms: the settings of each trial."""
