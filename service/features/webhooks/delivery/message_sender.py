"""Sends the messages of webhooks, in threads: a receiver that does not answer delays nobody else's messages."""

from __future__ import annotations

import threading
import time

import structlog
from sqlalchemy.exc import SQLAlchemyError

from service.features.webhooks.delivery import deliveries
from service.features.webhooks.delivery.deliveries import MAX_IN_FLIGHT, Claim
from service.features.webhooks.protocol import addresses, signing
from service.features.webhooks.protocol.addresses import AddressRules, Resolver
from service.runtime.failpoints import failpoint
from service.runtime.settings import Settings
from service.storage.database import Database

log = structlog.get_logger()


class MessageSender:
    """Claims messages that are due, and sends each in a thread. A process that ends leaves those in flight to their
    leases."""

    def __init__(
        self, database: Database, settings: Settings, *, resolver: Resolver = addresses.system_resolver
    ) -> None:
        self._database, self._settings, self._resolver = database, settings, resolver
        self._rules = AddressRules.of(settings)
        self._lock = threading.Lock()
        self._in_flight: dict[str, Claim] = {}  # by the lease
        self._threads: set[threading.Thread] = set()

    def send_due(self) -> int:
        """Begin to send what is due, as far as there is room; returns the number of messages."""
        with self._lock:
            in_flight = list(self._in_flight.values())
        room = MAX_IN_FLIGHT - len(in_flight)
        claims = deliveries.claim(self._database, in_flight=in_flight, at_most=room) if room > 0 else []
        if claims:
            failpoint("message_claimed")
        for claimed in claims:
            thread = threading.Thread(target=self._send, args=(claimed,), name="send a message", daemon=True)
            with self._lock:
                self._in_flight[claimed.lease] = claimed
                self._threads.add(thread)
            thread.start()
        return len(claims)

    def wait(self, timeout_s: float) -> bool:
        """Wait for the messages in flight; returns whether none is left."""
        deadline = time.monotonic() + timeout_s
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def _send(self, claimed: Claim) -> None:
        try:
            self._deliver(claimed)
        except SQLAlchemyError as error:
            log.warning("could not record the result of a message", message=claimed.event_id, error=str(error))
        finally:
            with self._lock:
                self._in_flight.pop(claimed.lease, None)
                self._threads.discard(threading.current_thread())

    def _deliver(self, claimed: Claim) -> None:
        # Loaded with the first message: httpx takes a third of the time that a scheduler needs to start.
        from service.features.webhooks.delivery.sending import send

        body, now_s = claimed.body(self._settings.url), int(time.time())
        signed = signing.headers(
            claimed.event_id, now_s, body, secrets=claimed.secrets, signing_keys=claimed.signing_keys
        )
        attempt = send(claimed.url, body, signed, self._rules, authorities=self._settings.ca, resolver=self._resolver)
        failpoint("message_sent", claimed.type)
        deliveries.record(self._database, claimed, attempt)
        told = {"webhook": claimed.webhook_id, "message": claimed.event_id, "type": claimed.type}
        if attempt.error is not None:
            log.info("a message was not delivered", **told, error=attempt.error)
