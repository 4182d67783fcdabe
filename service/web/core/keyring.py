"""The identities behind keys and cookies, cached for two seconds; a background thread records when keys were used."""

from __future__ import annotations

import hashlib
import hmac
import threading
import time
from typing import Final

import structlog
from cachetools import LRUCache, TTLCache
from sqlalchemy.exc import SQLAlchemyError

from service.access import keys
from service.access.keys import Identity
from service.runtime.settings import Settings
from service.storage.database import Database

FRESH_S: Final = 2.0
"""How long an identity is cached; a revocation or sign-out takes effect after at most this time."""
REFUSED_S: Final = 60.0
"""How long a wrong key is cached. It cannot become valid, and repeating it is not a new guess."""
_CACHE_SIZE: Final = 10_000
WRITE_INTERVAL_S: Final = keys.LAST_USE_PRECISION_S

_log = structlog.get_logger("tapeline.web")


class LastUse:
    """Collects used keys, and records them at most every ``WRITE_INTERVAL_S``.

    The thread starts on the first use, hence after a fork, and ends after an interval without any.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._used: set[str] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    def note(self, key_id: str) -> None:
        """Record that a key was used. Never blocks, never fails."""
        with self._lock:
            self._used.add(key_id)
            if self._thread is not None or self._closed.is_set():
                return
            thread = threading.Thread(target=self._run, name="last use of keys", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # no thread available: retried on the next use
                _log.debug("could not record the use of a key", error=str(error))
            else:
                self._thread = thread

    def close(self) -> None:
        """Wait for a write in progress, and stop recording."""
        self._closed.set()
        thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while True:
            with self._lock:
                used, self._used = self._used, set()
                if not used:
                    self._thread = None
                    return
            try:
                keys.record_use(self._database, used)
            except SQLAlchemyError as error:
                _log.debug("could not record the use of a key", error=str(error))
            if self._closed.wait(WRITE_INTERVAL_S):
                return


class Keyring:
    """Identifies keys from the settings and the database, with a cache."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._database = database
        self._last_use = LastUse(database)
        self._settings_keys = [(_digest(key), keys.of_settings(key)) for key in settings.api_keys]
        # Not a cache with expiry: an identity that is too old still shows that its key is no guess.
        self._known: LRUCache[bytes, tuple[Identity, float]] = LRUCache(_CACHE_SIZE)
        self._refused: TTLCache[bytes, None] = TTLCache(_CACHE_SIZE, REFUSED_S)
        self._lock = threading.Lock()

    @property
    def configured_owners(self) -> frozenset[str]:
        """The owners of the keys in the settings."""
        return frozenset(identity.owner for _, identity in self._settings_keys)

    def close(self) -> None:
        """Record no more uses of keys."""
        self._last_use.close()

    def by_key(self, text: str) -> Identity | None:
        """The identity of a key, or ``None`` if it is not valid."""
        digest, match = _digest(text), None
        for key_digest, identity in self._settings_keys:  # always all of them, against timing attacks
            if hmac.compare_digest(digest, key_digest):
                match = identity
        match = match or self._cached(digest, is_session=False) or self._look_up(digest, text, is_session=False)
        if match is None:
            self.refuse(text)
        return match

    def was_refused(self, text: str) -> bool:
        """Whether this key was found invalid within the last ``REFUSED_S``."""
        with self._lock:
            return _digest(text) in self._refused

    def refuse(self, text: str) -> None:
        """Note that a key, or the token of a link, is not valid."""
        with self._lock:
            self._refused[_digest(text)] = None

    def by_cookie(self, text: str) -> Identity | None:
        """The identity of a session cookie, or ``None`` if the session has ended."""
        digest = _digest(text)
        return self._cached(digest, is_session=True) or self._look_up(digest, text, is_session=True)

    def was_known(self, text: str) -> bool:
        """Whether this key was valid before, as far as the cache goes back."""
        digest = _digest(text)
        with self._lock:
            is_cached = digest in self._known
        return is_cached or any(hmac.compare_digest(digest, key_digest) for key_digest, _ in self._settings_keys)

    def forget(self, text: str) -> None:
        """Remove a key or cookie from the cache."""
        with self._lock:
            self._known.pop(_digest(text), None)

    def _cached(self, digest: bytes, *, is_session: bool) -> Identity | None:
        """The cached identity of the same kind: a session token is not accepted as a key, nor a key as a token."""
        with self._lock:
            entry = self._known.get(digest)
        if entry is None or time.monotonic() >= entry[1]:
            return None
        return entry[0] if (entry[0].session_id is not None) == is_session else None

    def _look_up(self, digest: bytes, text: str, *, is_session: bool) -> Identity | None:
        started = time.monotonic()
        with self._database.read() as session:
            if is_session:
                match = keys.identify_browser(session, text, [identity for _, identity in self._settings_keys])
            else:
                match = keys.identify(session, text)
        if match is not None:
            self._last_use.note(match.key_id)
        with self._lock:
            if match is None:
                self._known.pop(digest, None)
            else:
                self._known[digest] = (match, started + FRESH_S)
        return match


def _digest(text: str) -> bytes:
    # The cache must not contain keys in plain text.
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()
