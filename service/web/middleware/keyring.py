"""The identities behind keys and cookies, cached for two seconds."""

from __future__ import annotations

import hashlib
import hmac
import threading
import time
from dataclasses import dataclass
from typing import Final

from cachetools import LRUCache, TTLCache

from service.access import keys
from service.access.keys import Identity
from service.runtime.settings import Settings
from service.storage.database import Database
from service.web.middleware.last_use import LastUse

FRESH_S: Final = 2.0
"""How long an identity is cached; a revocation or sign-out takes effect after at most this time."""
REFUSED_S: Final = 60.0
"""How long a wrong key is cached. It cannot become valid, and repeating it is not a new guess."""
_CACHE_SIZE: Final = 10_000


@dataclass(slots=True)
class _CachedIdentity:
    identity: Identity
    expires_at: float


class Keyring:
    """Identifies keys from the settings and the database, with a cache."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._database = database
        self._last_use = LastUse(database)
        self._settings_keys = [(_digest(key), keys.of_settings(key)) for key in settings.api_keys]
        # Not a cache with expiry: an identity that is too old still shows that its key is no guess.
        self._known: LRUCache[bytes, _CachedIdentity] = LRUCache(_CACHE_SIZE)
        self._refused: TTLCache[bytes, None] = TTLCache(_CACHE_SIZE, REFUSED_S)
        self._lock = threading.Lock()

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
            with self._lock:
                self._refused[digest] = None
        return match

    def was_refused(self, text: str) -> bool:
        """Whether this key was found invalid within the last ``REFUSED_S``."""
        with self._lock:
            return _digest(text) in self._refused

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
        if entry is None or time.monotonic() >= entry.expires_at:
            return None
        return entry.identity if (entry.identity.session_id is not None) == is_session else None

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
                self._known[digest] = _CachedIdentity(match, started + FRESH_S)
        return match


def _digest(text: str) -> bytes:
    # The cache must not contain keys in plain text.
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()
