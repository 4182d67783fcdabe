"""The database, its tables, and the artifact store.

Files come before rows, because a file system knows no lease: names are never reused, files are written and synced
first, the row is the commit point, and `best` and `latest` are queries. A crash may leave a file without a row, which
the scheduler removes.

Commits are grouped: SQLite has one writer, and each commit waits for the disk. Whichever request gets the write lock
stores the jobs of all waiting requests, each in a savepoint of its own, and commits once; every response is sent after
the commit. If that commit fails, it fails for all of them.

The metrics of an epoch are one row of JSON text: they are written, read and compared together, and the text keeps every
bit of a float. There is no SQL over single metrics.

The object store trusts rows, not the bucket: servers that speak S3 differ in conditions, lists and digests, and an
answer may be lost. Names hold lease and random bits; a create-only put with a mark of its own is a second lock; SHA-256
is checked when a file is read.
"""
