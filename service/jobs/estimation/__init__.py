"""Cost estimates of jobs, from finished jobs and from calibrations of the machines."""
