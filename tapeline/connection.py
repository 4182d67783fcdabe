"""HTTP requests to a service, with safe retries and errors as exceptions."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import ssl
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

import httpx

from tapeline.addresses import is_this_machine, tls_context
from tapeline.errors import ApiError, ClientError, GateFailed, ServerUnreachable, ServerUntrusted, VersionMismatch
from tapeline.inputs.values import plain
from tapeline.version import VERSION

MIN_RETRY_DELAY_S: Final = 0.1
MAX_ATTEMPTS: Final = 4
RETRYABLE_STATUSES: Final = frozenset({502, 503, 504})
TOO_MANY_REQUESTS: Final = 429
UPLOAD_TIMEOUT_S: Final = 660.0
"""The service may read a file for ten minutes after it has received it."""
_CHUNK_BYTES: Final = 1 << 18
_PAGE_SIZE: Final = 100
_MAX_RETRY_AFTER_S: Final = 30.0
"""There is no retry if ``Retry-After`` is longer."""

_CADDY: Final = (
    "set TAPELINE_CA to the file with the certificate of its authority (that of Caddy in compose: docker compose cp "
    "caddy:/data/caddy/pki/authorities/local/root.crt . and TAPELINE_CA=$PWD/root.crt)"
)
_EXPIRED: Final = 10
_NOT_YET_VALID: Final = 9
_OTHER_NAME: Final = (62, 64)
"""Codes of OpenSSL: another host name, another address."""

OnWait = Callable[[str, float], None]
"""Called with the reason and the delay in seconds before a request is sent again."""


class Connection:
    """Sends requests, and retries those that are safe to repeat. The arguments are those of ``Client``.

    Raises:
        ValueError: ``server`` is not an HTTP URL.
        ClientError: the authorities that the environment names cannot be read.
    """

    def __init__(self, server: str, key: str | None = None, *, on_wait: OnWait | None = None) -> None:
        self.server = server.rstrip("/")
        self._on_wait = on_wait or (lambda reason, seconds: None)
        self.key = key or os.environ.get("TAPELINE_API_KEYS", "").partition(",")[0].strip() or None
        url = httpx.URL(self.server)
        if url.scheme not in ("http", "https") or not url.host:
            raise ValueError(f"the server must be a URL such as http://127.0.0.1:8000, not {server!r}")
        try:
            verify = tls_context() if url.scheme == "https" else True
        except ValueError as error:
            raise ClientError(str(error)) from error
        self._has_warned = False
        headers = {"User-Agent": f"tapeline-client/{VERSION}"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        self.http = httpx.Client(
            base_url=self.server,
            headers=headers,
            timeout=httpx.Timeout(30, connect=5),
            verify=verify,
            trust_env=not is_this_machine(url.host),  # no proxy for this machine
        )

    def close(self) -> None:
        """Close the connections."""
        self.http.close()

    def json(
        self, method: str, path: str, *, repeatable: bool = False, attempts: int = MAX_ATTEMPTS, **options: Any
    ) -> dict[str, Any]:
        """Send a request and return the JSON object of its response."""
        return self.json_and_headers(method, path, repeatable=repeatable, attempts=attempts, **options)[0]

    def json_and_headers(
        self, method: str, path: str, *, repeatable: bool = False, attempts: int = MAX_ATTEMPTS, **options: Any
    ) -> tuple[dict[str, Any], httpx.Headers]:
        """Send a request and return the JSON object of its response, and its headers."""
        with self.response(method, path, repeatable=repeatable, attempts=attempts, **options) as response:
            response.read()
            try:
                document = response.json()
            except ValueError:
                document = None
            if not isinstance(document, dict):
                raise ClientError(f"the server at {self.server} is not Tapeline")
            return document, response.headers

    def items(
        self, path: str, params: Mapping[str, str], *, limit: int | None = None, page_size: int | None = _PAGE_SIZE
    ) -> Iterator[dict[str, Any]]:
        """The items of a list, of which pages are fetched as needed.

        Args:
            limit: maximum number of items.
            page_size: ``None``: the service decides.
        """
        query, remaining = dict(params), limit
        while remaining is None or remaining > 0:
            size = page_size if remaining is None or page_size is None else min(remaining, page_size)
            page = self.json("GET", path, params=query | ({} if size is None else {"limit": str(size)}))
            yield from page["data"][:remaining]
            if page.get("next_cursor") is None:
                return
            remaining = None if remaining is None else remaining - len(page["data"])
            query["cursor"] = page["next_cursor"]

    @contextmanager
    def response(
        self,
        method: str,
        path: str,
        *,
        repeatable: bool = False,
        attempts: int = MAX_ATTEMPTS,
        follow_redirects: bool = False,
        **options: Any,
    ) -> Iterator[httpx.Response]:
        """Send a request and return the response before its body is read.

        Args:
            follow_redirects: whether another host may answer, which does not get the key.
            repeatable: whether the request can be sent again after an attempt that the service may have carried out;
                always true for a GET.

        Raises:
            ServerUnreachable, ApiError: after the last attempt.
        """
        repeatable = repeatable or method == "GET"
        request = self.http.build_request(method, path, **options)
        delay_s = MIN_RETRY_DELAY_S
        for attempt in range(1, attempts + 1):
            last = attempt == attempts
            try:
                response = self.http.send(request, stream=True, follow_redirects=follow_redirects)
            except httpx.TransportError as error:
                if (refused := untrusted(self.server, error)) is not None:
                    raise refused from None
                # Without a connection, the request had no effect.
                if last or not (repeatable or isinstance(error, httpx.ConnectError)):
                    raise ServerUnreachable(self.server, reason_of(error)) from None
            else:
                # A request beyond the rate limit had no effect either.
                wait_s = _retry_after_s(response)
                is_limited = response.status_code == TOO_MANY_REQUESTS and wait_s <= _MAX_RETRY_AFTER_S
                if last or not (is_limited or (repeatable and response.status_code in RETRYABLE_STATUSES)):
                    break
                if is_limited and wait_s:
                    with suppress(httpx.TransportError):  # the body breaks off, but Retry-After is known
                        self._on_wait(_refusal(response).detail, wait_s)
                response.close()
                if is_limited:
                    time.sleep(wait_s)
            time.sleep(delay_s)
            delay_s *= 2
        try:
            if response.status_code == TOO_MANY_REQUESTS and attempt > 1:
                raise _refusal(response, f"; gave up after {attempt} attempts")
            self._compare_versions(response)
            check(response)
            yield response
        except httpx.TransportError as error:  # the connection broke within the body
            raise ServerUnreachable(self.server, reason_of(error)) from None
        finally:
            response.close()

    def _compare_versions(self, response: httpx.Response) -> None:
        """Warn once if the service is of another version.

        Where warnings are errors, it is raised in place of a response that can be read again: not of an error, nor
        of a job that was created.
        """
        server = response.headers.get("Tapeline-Version")
        if server in (None, VERSION) or self._has_warned:
            return
        order = "older" if _parts(VERSION) < _parts(server) else "newer"
        text = f"this client ({VERSION}) is {order} than the service at {self.server} ({server})"
        remedy = f'pip install "{_distribution()}=={server}"'
        try:
            warnings.warn(f"{text}; for one of the same version: {remedy}", VersionMismatch, stacklevel=4)
        except VersionMismatch:
            if not response.is_success or response.request.method != "GET":
                return
            self._has_warned = True
            raise
        self._has_warned = True


def _distribution() -> str:
    """The installed one that has this client: that of the server, or the client alone."""
    with suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.distribution("tapeline").name
    return "tapeline-client"


def _parts(version: str) -> list[int]:
    """A version as numbers, by which versions are ordered."""
    return [int(number) for number in re.findall(r"\d+", version)]


def segment(text: str) -> str:
    """An id or name as a segment of a path. Every path of the client is made with this function.

    Raises:
        ApiError: it is empty or made of dots: the path would be that of another resource.
    """
    if text in ("", ".", ".."):
        raise ApiError(404, {"code": "not_found", "detail": f"{text!r} is not an id or name"})
    return quote(text, safe="@")


@dataclass(frozen=True, slots=True)
class FileContent:
    """The content of a request that is a file; it is read again if the request is repeated."""

    path: Path

    def __iter__(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk


def json_body(document: Mapping[str, Any] | bytes, **headers: str) -> dict[str, Any]:
    """The options of a request that sends a JSON document, or JSON text as it is."""
    content = document if isinstance(document, bytes) else json.dumps(document, default=plain).encode()
    return {"content": content, "headers": {"Content-Type": "application/json", **headers}}


def check(response: httpx.Response) -> None:
    """Raise ApiError unless the request succeeded."""
    if not response.is_success:
        raise _refusal(response)


def _refusal(response: httpx.Response, note: str = "") -> ApiError:
    response.read()
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        url = response.request.url.copy_with(query=None)  # which may be a signature
        problem = {"detail": f"{url} returned {response.status_code} {response.reason_phrase}"}
    kind = GateFailed if problem.get("code") == "gate_failed" else ApiError
    return kind(response.status_code, problem, note)


def untrusted(server: str, error: BaseException) -> ServerUntrusted | None:
    """The error for a connection that no repetition would change; ``None``: TLS is not its cause, or it broke."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, ssl.SSLCertVerificationError):
        if cause.verify_code in _OTHER_NAME:
            remedy = f"it is not for this host: use a name that it has ({cause.verify_message.rstrip('.')})"
        elif cause.verify_code in (_EXPIRED, _NOT_YET_VALID):
            remedy = f"{cause.verify_message}: renew it, or set the clock of this machine"
        else:
            remedy = f"{cause.verify_message}: {_CADDY}"
        return ServerUntrusted(server, f"its certificate is not trusted: {remedy}")
    if isinstance(cause, ssl.SSLError) and cause.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
        return ServerUntrusted(server, f"it does not speak TLS: use http://{urlsplit(server).netloc}")
    return None


def reason_of(error: Exception) -> str:
    """The cause of a transport error in a few words."""
    text = str(error).strip()
    match error:
        case httpx.ConnectTimeout():
            return "connection timed out"
        case httpx.TimeoutException():
            return "response timed out"
        case httpx.ConnectError() if "refused" in text:
            return "connection refused"
        case _:
            return text or type(error).__name__


def _retry_after_s(response: httpx.Response) -> float:
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isdecimal() else 0.0
