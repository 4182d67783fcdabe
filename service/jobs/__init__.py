"""The job lifecycle: user actions, leases, rescue, events.

A fork owns its first checkpoint: its parent may be deleted, or remove it, before a worker starts. It is copied and
verified before the fork's row commits, and never pruned; a reproduction copies the numbers that it is compared with.
Cost: twice the space, and a request that takes as long as the copy.

A worker passes over jobs whose folder it lacks: folders in `TAPELINE_DATA` are on some machines only. A claim names the
worker's datasets, and goes to the next owner if it has none of the jobs of the first; the queue names a folder that no
worker has. With SQLite there is one machine, and no filter. A claim reads the dataset from the spec of each job that it
passes over.

Names of jobs are not unique: people type names, and forks and reproductions inherit them. A job made from another gets
the next free name; a command uses the newest job with a name, and says so.
"""
