from __future__ import annotations

import hashlib

import pytest
from sqlalchemy import event, select, update

from service.access import keys, sign_in_links
from service.access.keys import Identity, Scope
from service.errors import KeyNotFound
from service.runtime.logs import redactor
from service.storage.database import Database
from service.storage.owner_tables import SignInLink
from service.storage.tables import ApiKey, AuditEntry, BrowserSession


def create_key(database: Database, **changes: object) -> tuple[ApiKey, str]:
    values: dict[str, object] = {"name": "laptop", "owner": "ann", "scope": Scope.SUBMIT}
    return keys.create(database, **(values | changes))  # type: ignore[arg-type]


def identify(database: Database, text: str) -> Identity | None:
    with database.read() as session:
        return keys.identify(session, text)


def test_a_key_identifies_its_owner_and_scope_and_only_its_digest_is_stored(database: Database) -> None:
    _, key = create_key(database)
    assert key.startswith("tpl_")
    assert redactor()(None, "", f"see {key}!") == f"see {key[:16]}_...!"
    for token in (keys.generate(prefix)[1] for prefix in ("tpo", "tps", "tsh")):
        assert redactor()(None, "", f"GET /shared/{token}") == f"GET /shared/{token[:16]}_..."
    identity = identify(database, key)
    assert identity is not None
    assert (identity.owner, identity.scope, identity.key_name) == ("ann", Scope.SUBMIT, "laptop")
    with database.read() as session:
        stored = session.scalars(select(ApiKey)).one()
    assert stored.digest == hashlib.sha256(key.encode()).hexdigest()
    assert key.rpartition("_")[2] not in str([getattr(stored, column.key) for column in ApiKey.__table__.columns])


def test_a_text_other_than_the_exact_key_is_not_accepted(database: Database) -> None:
    _, key = create_key(database)
    _, other_key = create_key(database)
    head, _, secret = key.rpartition("_")
    mixed = f"{head}_{other_key.rpartition('_')[2]}"
    for text in ("", head, secret, key[:-1], key + "0", key.upper(), key + "\n", mixed, key.replace("tpl", "tps")):
        assert identify(database, text) is None


def test_a_key_is_not_accepted_after_it_expires_or_is_revoked(database: Database) -> None:
    row, key = create_key(database, lifetime_s=60)
    _, other_key = create_key(database, name="other")
    assert identify(database, key) is not None
    with database.write() as session:
        session.execute(update(ApiKey).where(ApiKey.id == row.id).values(expires_ms=ApiKey.created_ms))
    assert identify(database, key) is None
    assert identify(database, other_key) is not None
    keys.revoke(database, "other")
    assert identify(database, other_key) is None
    with pytest.raises(KeyNotFound):
        keys.revoke(database, "other")
    with database.read() as session:
        # Compare names: two keys created in the same millisecond have no defined order.
        assert [listed.name for listed in keys.all_keys(session) if listed.revoked_ms is not None] == ["other"]


def test_a_name_shared_by_two_keys_revokes_neither(database: Database) -> None:
    first, key = create_key(database)
    create_key(database)
    with pytest.raises(KeyNotFound, match=first.id):
        keys.revoke(database, "laptop")
    keys.revoke(database, first.id)
    assert identify(database, key) is None
    keys.revoke(database, "laptop")


def test_an_id_revokes_its_own_key_and_not_a_key_with_that_name(database: Database) -> None:
    first, _ = create_key(database)
    _, other_key = create_key(database, name=first.id)
    revoked = keys.revoke_id(database, first.id)
    assert revoked.revoked_ms is not None
    assert keys.revoke_id(database, first.id).revoked_ms == revoked.revoked_ms
    assert identify(database, other_key) is not None
    with pytest.raises(KeyNotFound):
        keys.revoke_id(database, "laptop")


def test_the_last_action_of_a_key_is_found_through_an_index(database: Database) -> None:
    (ann, _), (bob, _), (_, _) = (create_key(database, owner=owner) for owner in ("ann", "bob", "idle"))
    with database.write() as session:
        for row, at_ms in ((ann, 3000), (bob, 5000), (ann, 2000)):
            session.add(AuditEntry(at_ms=at_ms, action="submit", key_id=row.id, detail={}))
    statements: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda c, cur, sql, *_: statements.append(sql))
    with database.read() as session:
        assert keys.last_recorded(session) == {ann.id: 3000, bob.id: 5000}
        assert keys.last_recorded(session, bob.id) == {bob.id: 5000}
        if database.is_sqlite:
            query = next(sql for sql in statements if "max(" in sql)
            plan = str(session.connection().exec_driver_sql("EXPLAIN QUERY PLAN " + query).all())
            assert "ix_audit_key" in plan


@pytest.mark.parametrize("owner", ["", "a b", "-a", "a/b", "ä", "a" * 65, "a\n"])
def test_an_invalid_owner_name_is_refused(database: Database, owner: str) -> None:
    with pytest.raises(ValueError, match="owner"):
        create_key(database, owner=owner)


def test_each_scope_covers_those_before_it() -> None:
    covered = [[scope.covers(needed) for needed in Scope] for scope in Scope]
    assert covered == [[True, False, False], [True, True, False], [True, True, True]]


def test_a_session_ends_when_its_key_is_revoked_and_when_it_is_signed_out(database: Database) -> None:
    row, key = create_key(database, lifetime_s=60)
    identity = identify(database, key)
    assert identity is not None
    tokens = [keys.sign_in(database, identity)[1] for _ in range(2)]

    def identify_session(token: str) -> Identity | None:
        with database.read() as session:
            return keys.identify_browser(session, token, [])

    first = identify_session(tokens[0])
    assert first is not None
    assert first.session_id is not None
    assert (first.owner, first.scope, first.expires_ms) == ("ann", Scope.SUBMIT, row.expires_ms)
    assert identify(database, tokens[0]) is None
    assert identify_session(key) is None
    keys.sign_out(database, first.session_id)
    assert identify_session(tokens[0]) is None
    assert identify_session(tokens[1]) is not None
    keys.revoke(database, row.id)
    assert identify_session(tokens[1]) is None


def test_a_session_of_a_key_from_the_settings_ends_when_the_key_is_removed_there(database: Database) -> None:
    identity = keys.of_settings("chosen by the operator")
    _, token = keys.sign_in(database, identity)
    with database.read() as session:
        assert keys.identify_browser(session, token, [identity]) is not None
        assert keys.identify_browser(session, token, []) is None


def test_links_and_sessions_that_have_long_expired_are_purged(database: Database) -> None:
    row, _ = keys.create(database, name="ann", owner="ann", scope=Scope.SUBMIT)
    day_s = 24 * 60 * 60
    with database.write() as session:
        for days in (-91, -89, 1):
            sign_in_links.create(session, row.id, lifetime_s=days * day_s)
        identity = sign_in_links.find(session, sign_in_links.create(session, row.id))
    keys.sign_in(database, identity, lifetime_s=-1)
    keys.sign_in(database, identity)
    keys.purge_expired(database)
    sign_in_links.purge_expired(database)
    with database.read() as session:
        assert len(session.scalars(select(SignInLink.id)).all()) == 3
        assert len(session.scalars(select(BrowserSession.id)).all()) == 1
