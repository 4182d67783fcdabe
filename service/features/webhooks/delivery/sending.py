"""Sends one message: to an address that was checked, and with limits on what a receiver may cost.

The only module that opens connections; the scheduler alone imports it.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import httpx

from service.features.webhooks.delivery.deliveries import Attempt
from service.features.webhooks.errors import AddressRefused
from service.features.webhooks.protocol import addresses
from service.features.webhooks.protocol.addresses import AddressRules, Resolver, Target

CONNECT_TIMEOUT_S: Final = 5.0
TOTAL_TIMEOUT_S: Final = 20.0
MAX_ANSWER_BYTES: Final = 64 * 1024
_MAX_ADDRESSES: Final = 3
"""Addresses of a host that are tried in turn."""
_MAX_ERROR: Final = 500
"""Characters: the text of some errors repeats what the receiver sent."""
_USER_AGENT: Final = "Tapeline-Webhooks/1"


def send(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    rules: AddressRules,
    *,
    authorities: str = "",
    resolver: Resolver = addresses.system_resolver,
    timeout_s: float = TOTAL_TIMEOUT_S,
) -> Attempt:
    """Make one attempt to deliver a message. It never raises because of the receiver.

    Args:
        authorities: a PEM file of certificate authorities that are trusted besides those of the system.
        timeout_s: of the whole attempt, from the connection to the end of the answer.
    """
    began, at_ms = time.monotonic(), time.time_ns() // 1_000_000
    try:
        target = addresses.parse(url, rules)
        found = addresses.resolve(target, rules, resolver)
    except AddressRefused as error:
        return Attempt(at_ms=at_ms, seconds=time.monotonic() - began, error=f"the URL {error}")
    try:
        status, answer, error_text, retry_after_s = asyncio.run(
            _send_within(timeout_s, target, found[:_MAX_ADDRESSES], body, headers, authorities)
        )
    except Exception as error:  # noqa: BLE001 - an attempt without a result would be repeated for ever
        status, answer, error_text, retry_after_s = None, b"", f"{type(error).__name__}: {error}", None
    return Attempt(
        at_ms=at_ms,
        seconds=time.monotonic() - began,
        status=status,
        response=answer.decode("utf-8", "replace"),
        error=error_text if error_text is None else error_text[:_MAX_ERROR],
        retry_after_s=retry_after_s,
    )


_Result = tuple[int | None, bytes, str | None, float | None]
"""Status, answer, error, and the seconds of ``Retry-After``."""


async def _send_within(
    timeout_s: float, target: Target, found: list[str], body: bytes, headers: Mapping[str, str], authorities: str
) -> _Result:
    answer = bytearray()
    try:
        # A timeout of each read would permit an endless answer: this one ends whatever goes on.
        async with asyncio.timeout(timeout_s):
            return await _try_addresses(target, found, body, headers, authorities, answer)
    except TimeoutError:
        return None, bytes(answer), f"no complete answer within {timeout_s:g} s", None
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        return None, bytes(answer), _describe(error), None


async def _try_addresses(
    target: Target, found: list[str], body: bytes, headers: Mapping[str, str], authorities: str, answer: bytearray
) -> _Result:
    for number, address in enumerate(found, start=1):
        try:
            return await _post(target, address, body, headers, authorities, answer)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            if number == len(found):
                raise
    raise OSError("no address")


async def _post(
    target: Target, address: str, body: bytes, headers: Mapping[str, str], authorities: str, answer: bytearray
) -> _Result:
    """One request to one address; the certificate must be the host's."""
    url = httpx.URL(target.url)
    request = httpx.Request(
        "POST",
        url.copy_with(host=address),
        headers={
            "Host": url.netloc.decode("ascii"),
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": _USER_AGENT,
            **headers,
        },
        content=body,
        extensions={"sni_hostname": target.host},
    )
    timeout = httpx.Timeout(TOTAL_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
    # A client of its own: no connection, cookie or proxy outlives an attempt or comes from elsewhere.
    async with httpx.AsyncClient(
        verify=_tls(authorities), trust_env=False, follow_redirects=False, timeout=timeout
    ) as client:
        response = await client.send(request, stream=True)
        try:
            async for chunk in response.aiter_raw():
                answer += chunk[: MAX_ANSWER_BYTES - len(answer)]
                if len(answer) >= MAX_ANSWER_BYTES:
                    break
        finally:
            await response.aclose()
    error = None if response.is_success else f"the response is {response.status_code}"
    if 300 <= response.status_code < 400:
        error = f"the response is {response.status_code}: redirects are not followed; change the URL of the webhook"
    return response.status_code, bytes(answer), error, _retry_after_s(response.headers.get("Retry-After", ""))


@functools.cache
def _tls(authorities: str) -> ssl.SSLContext:
    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()
    if authorities:
        context.load_verify_locations(authorities)
    return context


def _retry_after_s(text: str) -> float | None:
    """The seconds of a ``Retry-After`` header, which has a number or a date."""
    if text.isascii() and text.isdecimal():
        return float(text[:9])
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _describe(error: Exception) -> str:
    match error:
        case httpx.ConnectTimeout():
            return f"no connection within {CONNECT_TIMEOUT_S:g} s"
        case httpx.TimeoutException():
            return "the receiver did not answer in time"
        case httpx.ConnectError() if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return f"the certificate is not valid: {error}"
        case httpx.ConnectError():
            return f"no connection: {error}"
        case httpx.RemoteProtocolError():
            return f"the receiver does not speak HTTP: {error}"
        case httpx.NetworkError():
            return "the receiver has closed the connection"
    return f"{type(error).__name__}: {error}"
