"""What every request of a web process shares: settings, database, artifacts, keys, quotas, metrics.

A key or cookie is cached by its digest for two seconds, because every request carries one: a revocation takes effect
within two seconds. Queued jobs and stored bytes of an owner are counted once per second, and what the process accepts
meanwhile is added: counting takes longer than storing. Several processes can exceed a quota slightly; workers enforce
that of stored files.

Metrics are counted from the event log by the process that is scraped: rows of counters would be contended by every
epoch, and workers have no port. Counts are ten seconds late, and events are not counted if scrapes stop for five
minutes.
"""
