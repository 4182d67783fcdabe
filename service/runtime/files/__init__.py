"""Files that survive a crash, and files that nobody else can read."""
