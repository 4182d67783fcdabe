"""Who a key or a cookie stands for: asked in the database at most every other second for each."""

from __future__ import annotations

import hashlib
import hmac
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from service.access import keys
from service.access.keys import Identity
from service.runtime.settings import Settings
from service.storage.database import Database
from service.web.middleware.last_use import LastUse

FRESH_S: Final = 2.0
"""How long an answer of the database is believed: so late may a revoked key, or a sign-out, count."""
REFUSED_S: Final = 60.0
"""How long a wrong key is known as one: nothing makes it right, and a program that repeats it guesses nothing new."""
_REMEMBERED: Final = 10_000


@dataclass(slots=True)
class _Known:
    identity: Identity
    until: float


class Keyring:
    """The keys of the settings, and those of the database with what is remembered of them."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._database = database
        self._last_use = LastUse(database)
        self._of_settings = [(_digest(key), keys.of_settings(key)) for key in settings.api_keys]
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._refused: OrderedDict[bytes, float] = OrderedDict()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Record no more uses of keys."""
        self._last_use.close()

    def by_key(self, text: str) -> Identity | None:
        """Whose key this is, ``None`` where it opens nothing."""
        digest, found = _digest(text), None
        for known, identity in self._of_settings:  # all of them, so that the time tells nothing
            if hmac.compare_digest(digest, known):
                found = identity
        found = found or self._remembered(digest, is_session=False) or self._ask(digest, text, is_session=False)
        if found is None:
            with self._lock:
                self._refused[digest] = time.monotonic() + REFUSED_S
                self._refused.move_to_end(digest)
                if len(self._refused) > _REMEMBERED:
                    self._refused.popitem(last=False)
        return found

    def was_refused(self, text: str) -> bool:
        """Whether this key opened nothing a moment ago."""
        return self._refused.get(_digest(text), 0.0) > time.monotonic()

    def by_cookie(self, text: str) -> Identity | None:
        """Whose session this is, ``None`` where it is over."""
        digest = _digest(text)
        return self._remembered(digest, is_session=True) or self._ask(digest, text, is_session=True)

    def was_known(self, text: str) -> bool:
        """Whether this opened something here before, as far as is remembered."""
        digest = _digest(text)
        return digest in self._known or any(hmac.compare_digest(digest, known) for known, _ in self._of_settings)

    def forget(self, text: str) -> None:
        """Ask the database anew next time."""
        with self._lock:
            self._known.pop(_digest(text), None)

    def _remembered(self, digest: bytes, *, is_session: bool) -> Identity | None:
        """What was found a moment ago, in the same place: a cookie's token is no key, nor a key a cookie."""
        known = self._known.get(digest)
        if known is None or time.monotonic() >= known.until:
            return None
        return known.identity if (known.identity.session_id is not None) == is_session else None

    def _ask(self, digest: bytes, text: str, *, is_session: bool) -> Identity | None:
        asked = time.monotonic()
        with self._database.read() as session:
            if is_session:
                found = keys.identify_browser(session, text, [identity for _, identity in self._of_settings])
            else:
                found = keys.identify(session, text)
        if found is not None:
            self._last_use.note(found.key_id)
        with self._lock:
            if found is None:
                self._known.pop(digest, None)
            else:
                self._known[digest] = _Known(found, asked + FRESH_S)
                self._known.move_to_end(digest)
                if len(self._known) > _REMEMBERED:
                    self._known.popitem(last=False)
        return found


def _digest(text: str) -> bytes:
    # What is remembered must not be a list of keys.
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()
