"""The kinds of jobs, each a folder."""
