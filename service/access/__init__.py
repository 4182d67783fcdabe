"""API keys, sessions and the audit log.

An audit entry commits with its action, which takes its actor as `by=`: a log that is written after the commit lacks
entries after a crash. Entries are sealed seconds later, by the scheduler, once no transaction that began before them is
open: with a chain that each entry extends, every submission would wait for one lock. The newest entries are not
protected yet.

The quota of stored files has no counter, which a dozen places would have to update: the sizes of an owner's jobs are
summed over an index that covers them, in each transaction that adds files, under a lock of the owner. The sum grows
with the number of jobs, and epochs of one owner are committed one at a time.
"""
