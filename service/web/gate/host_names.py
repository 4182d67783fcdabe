"""The names of the service in ``Host``: a page of another site could lead a browser to it under a name of its own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

from service.runtime.settings import Settings, is_loopback

_HOST: Final = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9._-]{1,253})(?::[0-9]{1,5})?", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class HostNames:
    """The names of one service, besides those of this machine."""

    allowed: frozenset[str]

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Those of the settings; an address that stands for all interfaces is no name."""
        names = {name.lower().rstrip(".") for name in (*settings.allowed_hosts, settings.host)}
        return cls(frozenset(names) - {"", "0.0.0.0", "::"})  # noqa: S104 - nothing is bound to it

    def include(self, host: str) -> bool:
        """Whether a ``Host`` header names this machine or one of the allowed names; any port is accepted."""
        if host.lower() in self.allowed:
            return True
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = match[1].lower().rstrip(".")
        is_allowed = name in self.allowed or name.strip("[]") in self.allowed
        return is_allowed or name.endswith(".localhost") or is_loopback(name)
