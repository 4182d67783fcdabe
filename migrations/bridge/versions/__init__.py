"""The revisions as they were at the time. The last one, 0014, has the schema of that number in today's chain."""
