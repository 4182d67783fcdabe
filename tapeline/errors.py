"""Errors of the client; all are subclasses of ``ClientError``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from tapeline.addresses import is_this_machine


class ClientError(Exception):
    """Base class of all errors of the client."""


class ServerUnreachable(ClientError, ConnectionError):
    """The service does not respond."""

    def __init__(self, server: str, reason: str) -> None:
        super().__init__(self._message(server, reason))
        self.server, self.reason = server, reason

    def _message(self, server: str, reason: str) -> str:
        url = urlsplit(server)
        # `tapeline up` serves HTTP; in front of HTTPS is a proxy, which something else starts.
        is_startable = url.scheme == "http" and is_this_machine(url.hostname or "")
        return f"no response from {server} ({reason}){'; start it with: tapeline up' if is_startable else ''}"


class ServerUntrusted(ServerUnreachable):
    """The TLS connection was refused by this client: the server's certificate is not trusted here, or it has none."""

    def _message(self, server: str, reason: str) -> str:
        return f"no connection to {server}: {reason}"


class NotUploadable(ClientError):
    """A dataset cannot be made from a file of this kind; the message names the kind and the remedy."""


_HINTS: Final = {
    "key_required": "; give one with Client(server, key) or the variable TAPELINE_API_KEYS",
    "budget_spent": "; job.change(budget={'seconds': n}) gives it more, then job.resume() continues it",
}
"""What a method of the client does about a problem, by its code."""
_METHOD: Final = re.compile(r"(?:GET|POST) /jobs/\w+/(\w+)$")
"""A request that a problem advises, which a method of ``Job`` sends."""
_GATES: Final = re.compile(r"(gates of @[^:\s]+):.*$", re.DOTALL)
"""The detail of a failed gate, up to the sentences, which have lines of their own."""


class ApiError(ClientError):
    """The service refused the request; ``problem`` is the problem document (RFC 9457)."""

    def __init__(self, status: int, problem: Mapping[str, Any], note: str = "") -> None:
        self.status = status
        self.problem = dict(problem)
        self.code = str(problem.get("code", ""))
        self.detail = str(problem.get("detail") or problem.get("title") or f"HTTP status {status}")
        self.errors: Sequence[Mapping[str, Any]] = problem.get("errors") or []
        """The faults of a spec: each with ``pointer``, ``detail``, ``code`` and possibly ``suggestion``."""
        hint = _HINTS.get(self.code, "")
        super().__init__("\n".join([self._headline() + note + hint, *(f"  {line}" for line in self._lines())]))

    def _headline(self) -> str:
        # With faults, the detail repeats them.
        return str(self.problem.get("title") or self.detail) if self.errors else _METHOD.sub(r"job.\1()", self.detail)

    def _lines(self) -> list[str]:
        return [_format_fault(error) for error in self.errors]


class GateFailed(ApiError):
    """A version does not meet the gates of an alias."""

    @property
    def gates(self) -> list[dict[str, Any]]:
        """What each gate found: ``gate``, ``passed``, ``sentence``, ``evidence``, and in ``remedies`` the requests that
        would supply what is missing; ``Model.supply`` sends them."""
        return list(self.problem.get("gates") or [])

    def _headline(self) -> str:
        return _GATES.sub(r"\1", self.detail)

    def _lines(self) -> list[str]:
        return [f"{'ok' if gate['passed'] else 'no'}  {gate['sentence']}" for gate in self.gates]


class AmbiguousJob(ClientError, LookupError):
    """Several jobs match; ``candidates`` are their documents, newest first."""

    def __init__(self, text: str, candidates: Sequence[Mapping[str, Any]], lines: Sequence[str]) -> None:
        headline = f"several jobs match {text!r}; use a full name, or more of the id:"
        super().__init__("\n".join([headline, *(f"  {line}" for line in lines)]))
        self.candidates = list(candidates)
        self.problem = {
            "code": "ambiguous_job",
            "detail": headline.removesuffix(":"),
            "candidates": [
                {field: job.get(field) for field in ("id", "name", "status", "created_at")} for job in candidates
            ],
        }


class UnreadableImage(ClientError, ValueError):
    """A file or bytes are not an image that ``predict`` supports."""


class DownloadDamaged(ClientError):
    """The received bytes differ from those that the service sent."""


class VersionMismatch(UserWarning):
    """The client is older or newer than the service."""


class MissingPackage(ClientError, ImportError):
    """An optional package is not installed."""

    def __init__(self, package: str, needed_by: str) -> None:
        super().__init__(f"{needed_by} needs the package {package}: pip install {package}", name=package)


class ExportFailed(ClientError):
    """A model could not be exported to another program."""


def _format_fault(error: Mapping[str, Any]) -> str:
    location = error.get("pointer") or error.get("parameter") or "#"
    if location.startswith("#/space/"):  # of a setting, people know the name
        name, *rest = location.removeprefix("#/space/").split("/")
        location = " ".join([name.removeprefix("~1").replace("~1", ".").replace("~0", "~"), *rest])
    return f"{location}: {error.get('detail') or error.get('code')}"
