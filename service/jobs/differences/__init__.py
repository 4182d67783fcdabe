"""Where results differ, and why: two jobs, by their stored data and by a replay of both, or the epochs of one."""
