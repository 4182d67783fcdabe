"""Jobs of kinds that an older version does not know: one of them, and it cannot list the jobs of its owner."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, MetaData, Table, delete, select

from service.errors import SettingsError


def remove(connection: Connection, *, known: Collection[str], delete: bool) -> None:
    """Make sure that there are only jobs and sweeps of known kinds, before a downgrade.

    Raises:
        SettingsError: there are others, and they are not to be deleted.
    """
    tables = MetaData()
    tables.reflect(connection)
    jobs, sweeps = tables.tables["jobs"], tables.tables["sweeps"]
    newer = connection.execute(select(jobs.c.id).where(jobs.c.kind.not_in(known))).scalars().all()
    resolved = connection.execute(select(sweeps.c.id, sweeps.c.resolved)).all()
    newer_sweeps = [row.id for row in resolved if row.resolved["base"]["kind"] not in known]
    if not newer and not newer_sweeps:
        return
    if not delete:
        raise SettingsError(
            f"the older version knows only {' and '.join(known)}, and could not list jobs of owners who have others: "
            f"{len(newer)} jobs, such as {(newer or newer_sweeps)[0]}, and {len(newer_sweeps)} sweeps. Keep what you "
            "need of them (tapeline export), and add --delete-newer-kinds, which deletes them. Nothing was changed."
        )
    _delete(connection, tables, jobs, newer)
    _delete(connection, tables, sweeps, newer_sweeps)


def _delete(connection: Connection, tables: MetaData, table: Table, ids: Collection[str]) -> None:
    """Delete rows and what belongs to them: SQLite's foreign keys are off in a migration."""
    for other in tables.sorted_tables:
        for key in other.foreign_keys:
            if key.column.table is table:
                connection.execute(delete(other).where(key.parent.in_(ids)))
    connection.execute(delete(table).where(table.c.id.in_(ids)))
