"""What a job will cost, from finished jobs and from measurements of the machines."""
