"""What the generated methods of a client share: how a request is made of their arguments.

HTTP is imported by the first request: the command line reads the methods' signatures for ``--help`` and completion.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from tapeline.connection import Connection

_REPEATABLE: Final = ("PUT", "PATCH")


class Calls:
    """Sends the requests of a client. Paths have the names of their parameters, as in ``/openapi.json``."""

    _connection: Connection
    _query: Mapping[str, str] = MappingProxyType({})
    """The parameters of URLs that the object stands for."""

    @property
    def _names(self) -> Mapping[str, object]:
        """The parameters of paths that the object stands for."""
        return {}

    def _send(
        self,
        method: str,
        path: str,
        names: Mapping[str, object] | None = None,
        *,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        repeatable: bool = False,
    ) -> dict[str, Any]:
        """Send a request, and return the document of its response."""
        from tapeline.connection import json_body

        params = {**self._query, **(query or {})}
        options: dict[str, Any] = {"params": params} if params else {}
        options |= json_body(body) if body is not None else {}
        repeatable = repeatable or method in _REPEATABLE
        return self._connection.json(
            method, address(path, {**self._names, **(names or {})}), repeatable=repeatable, **options
        )

    def _items(
        self,
        method: Literal["GET"],
        path: str,
        names: Mapping[str, object] | None = None,
        *,
        query: Mapping[str, Any] | None = None,
    ) -> list[dict[str, Any]]:
        """The items of a list that has no pages."""
        items: list[dict[str, Any]] = self._send(method, path, names, query=query)["data"]
        return items

    def _pages(
        self,
        method: Literal["GET"],
        path: str,
        names: Mapping[str, object] | None = None,
        *,
        query: Mapping[str, Any] | None = None,
        limit: int | None,
    ) -> list[dict[str, Any]]:
        """The items of a list that has pages, at most ``limit``."""
        path = address(path, {**self._names, **(names or {})})
        return list(self._connection.items(path, {**self._query, **(query or {})}, limit=limit))

    def _nothing(self, method: str, path: str, names: Mapping[str, object] | None = None) -> None:
        """Send a request whose response has no content."""
        path = address(path, {**self._names, **(names or {})})
        with self._connection.response(method, path, params=dict(self._query)):
            pass


class BoundCalls(Calls):
    """The same for an object of the client, such as a job."""

    @property
    @abstractmethod
    def _names(self) -> Mapping[str, object]:
        """The parameter of paths that the object stands for."""


def address(path: str, names: Mapping[str, object]) -> str:
    """A path with the values of its parameters."""
    from tapeline.connection import segment

    return path.format(**{name: segment(str(value)) for name, value in names.items()})


def given(**arguments: Any) -> dict[str, Any]:
    """The arguments that are not ``None``: what is left out is not sent."""
    return {name: value for name, value in arguments.items() if value is not None}
