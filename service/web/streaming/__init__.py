"""Server-sent events: one poller for all streams of a process. Knows no job and no sweep."""
