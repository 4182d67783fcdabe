"""The triggers that keep the audit log and its seals append-only."""

from __future__ import annotations

from typing import Final

# A seal changes only once: retention marks it as removed, oldest first, never the newest one, and only if all of its
# entries are more than a day (86,400,000 ms) old. Then its entries may be deleted. A restore inserts marked seals,
# which have no entries.
SQLITE: Final = (
    """
CREATE TRIGGER audit_is_append_only BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END
""",
    """
CREATE TRIGGER audit_keeps_entries BEFORE DELETE ON audit
WHEN OLD.at_ms > CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER) - 86400000 OR NOT COALESCE(
    (SELECT removed_ms IS NOT NULL AND first_id <= OLD.id FROM audit_seals
     WHERE last_id >= OLD.id ORDER BY last_id LIMIT 1), FALSE)
BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END
""",
    # INSERT OR REPLACE deletes rows without firing the DELETE trigger.
    """
CREATE TRIGGER audit_replaces_nothing BEFORE INSERT ON audit
WHEN EXISTS (SELECT 1 FROM audit WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END
""",
    """
CREATE TRIGGER audit_seals_keep_rows BEFORE DELETE ON audit_seals
BEGIN SELECT RAISE(ABORT, 'the seals of the audit are append-only'); END
""",
    """
CREATE TRIGGER audit_seals_replace_nothing BEFORE INSERT ON audit_seals
WHEN EXISTS (SELECT 1 FROM audit_seals WHERE id = NEW.id)
    OR NEW.removed_ms IS NOT NULL AND EXISTS (SELECT 1 FROM audit WHERE id BETWEEN NEW.first_id AND NEW.last_id)
BEGIN SELECT RAISE(ABORT, 'the seals of the audit are append-only'); END
""",
    """
CREATE TRIGGER audit_seals_are_marked_once BEFORE UPDATE ON audit_seals
WHEN OLD.removed_ms IS NOT NULL OR NEW.removed_ms IS NULL
    OR OLD.id IS NOT NEW.id OR OLD.first_id IS NOT NEW.first_id OR OLD.last_id IS NOT NEW.last_id
    OR OLD.count IS NOT NEW.count OR OLD.entries_digest IS NOT NEW.entries_digest
    OR OLD.digest IS NOT NEW.digest OR OLD.created_ms IS NOT NEW.created_ms
    OR OLD.id > 1 AND NOT EXISTS (SELECT 1 FROM audit_seals WHERE id = OLD.id - 1 AND removed_ms IS NOT NULL)
    OR NOT EXISTS (SELECT 1 FROM audit_seals WHERE id = OLD.id + 1)
    OR EXISTS (SELECT 1 FROM audit WHERE id BETWEEN OLD.first_id AND OLD.last_id
               AND at_ms > CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER) - 86400000)
BEGIN SELECT RAISE(ABORT, 'the seals of the audit are append-only'); END
""",
)

# Tables are qualified with the schema of the trigger's own table, and the search path is fixed: otherwise a session
# could shadow them with temporary tables.
POSTGRESQL: Final = (
    """
CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'the audit is append-only'; END $$
""",
    "CREATE TRIGGER audit_is_append_only BEFORE UPDATE ON audit EXECUTE FUNCTION audit_is_append_only()",
    """
CREATE FUNCTION audit_keeps_entries() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE removed boolean;
BEGIN
    EXECUTE format('SELECT removed_ms IS NOT NULL AND first_id <= $1 FROM %I.audit_seals
                    WHERE last_id >= $1 ORDER BY last_id LIMIT 1', TG_TABLE_SCHEMA) INTO removed USING OLD.id;
    IF removed IS TRUE AND OLD.at_ms <= CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT) - 86400000 THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'the audit is append-only';
END $$
""",
    "CREATE TRIGGER audit_keeps_entries BEFORE DELETE ON audit FOR EACH ROW EXECUTE FUNCTION audit_keeps_entries()",
    "CREATE TRIGGER audit_is_not_truncated BEFORE TRUNCATE ON audit EXECUTE FUNCTION audit_is_append_only()",
    """
CREATE FUNCTION audit_seals_are_append_only() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE allowed boolean := FALSE;
BEGIN
    IF TG_OP = 'INSERT' THEN
        EXECUTE format('SELECT NOT EXISTS (SELECT 1 FROM %I.audit WHERE id BETWEEN $1 AND $2)', TG_TABLE_SCHEMA)
            INTO allowed USING NEW.first_id, NEW.last_id;
    ELSIF TG_OP = 'UPDATE' THEN
        IF OLD.removed_ms IS NULL AND NEW.removed_ms IS NOT NULL
            AND (OLD.id, OLD.first_id, OLD.last_id, OLD.count, OLD.entries_digest, OLD.digest, OLD.created_ms)
                IS NOT DISTINCT FROM
                (NEW.id, NEW.first_id, NEW.last_id, NEW.count, NEW.entries_digest, NEW.digest, NEW.created_ms)
        THEN
            EXECUTE format('SELECT ($1 = 1 OR EXISTS (SELECT 1 FROM %1$I.audit_seals
                                                      WHERE id = $1 - 1 AND removed_ms IS NOT NULL))
                            AND EXISTS (SELECT 1 FROM %1$I.audit_seals WHERE id = $1 + 1)
                            AND NOT EXISTS (SELECT 1 FROM %1$I.audit WHERE id BETWEEN $2 AND $3 AND at_ms > $4)',
                           TG_TABLE_SCHEMA)
                INTO allowed
                USING OLD.id, OLD.first_id, OLD.last_id,
                      CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT) - 86400000;
        END IF;
    END IF;
    IF allowed THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'the seals of the audit are append-only';
END $$
""",
    """
CREATE TRIGGER audit_seals_are_append_only BEFORE UPDATE OR DELETE ON audit_seals
FOR EACH ROW EXECUTE FUNCTION audit_seals_are_append_only()
""",
    """
CREATE TRIGGER audit_seals_are_inserted_unmarked BEFORE INSERT ON audit_seals
FOR EACH ROW WHEN (NEW.removed_ms IS NOT NULL) EXECUTE FUNCTION audit_seals_are_append_only()
""",
    """
CREATE TRIGGER audit_seals_are_not_truncated BEFORE TRUNCATE ON audit_seals
EXECUTE FUNCTION audit_seals_are_append_only()
""",
)

FUNCTIONS: Final = ("audit_keeps_entries", "audit_is_append_only", "audit_seals_are_append_only")
"""Trigger functions in PostgreSQL, which are not dropped with their tables."""
