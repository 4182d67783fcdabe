"""Models of the registry: versions, and aliases that move under gates."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Self

from tapeline.connection import Connection, json_body, segment
from tapeline.method_types import Records
from tapeline.methods.model import ModelMethods
from tapeline.notebook import cards
from tapeline.resources import Document

REFERENCE: Final = re.compile(r"([^@:]+)(?:@([^@:]+)|:([0-9]{1,9}))")
"""A version of a model: ``digits@champion`` or ``digits:3``."""


class RegisteredModel(Document, ModelMethods):
    """A model, or one version of it, as of the last request; ``refresh`` updates it.

    Args:
        reference: ``digits`` for the model, ``digits@champion`` or ``digits:3`` for a version.
        owner: whose model it is, for a key with the scope ``admin``.
    """

    def __init__(
        self,
        connection: Connection,
        reference: str,
        document: Mapping[str, Any] | None = None,
        *,
        owner: str | None = None,
    ) -> None:
        super().__init__(connection, document or {})
        self._reference = reference
        self._query: dict[str, str] = {"owner": owner} if owner is not None else {}

    def __repr__(self) -> str:
        return f"<Model {self.reference}>"

    @property
    def reference(self) -> str:
        """``digits@champion``, ``digits:3``, or ``digits``."""
        return self._reference

    @property
    def name(self) -> str:
        """The name of the model."""
        return re.split("[@:]", self._reference)[0]

    def refresh(self) -> Self:
        """Read it again; an alias may hold another version now."""
        found = self._connection.json("GET", self._path, params=self._query, follow_redirects=True)
        return self._set_document(found)

    @property
    def page(self) -> str:
        """The URL of its page."""
        return f"{self._connection.server}/ui{self._model}"

    # Reading.

    def versions(self) -> Records:
        """All versions, the newest first: ``version``, ``aliases``, ``job``, ``checkpoint``, ``note``, ``created_at``,
        metrics and others; ``to_frame()`` makes a DataFrame."""
        rows = Records()
        for item in self._connection.items(f"{self._model}/versions", self._query):
            names = ("version", "reference", "aliases", "job", "kind", "checkpoint", "sha256", "size_bytes")
            row = {name: item[name] for name in names} | item["metrics"]
            rows.append(row | {name: item[name] for name in ("note", "approvals", "created_at")})
        return rows

    def history(self, alias: str) -> Records:
        """The moves of an alias, the newest first: ``seq``, ``kind``, ``from_version``, ``to_version``, ``forced``,
        ``reason``, ``at``, and in ``gates`` what each gate found at that time."""
        return Records(self._connection.items(f"{self._alias(alias)}/history", self._query))

    # Changing it.

    def move(
        self,
        alias: str,
        version: int,
        *,
        reason: str | None = None,
        force: bool = False,
        dry_run: bool = False,
        after: int | None = None,
    ) -> dict[str, Any]:
        """Move an alias to a version that meets its gates.

        Args:
            reason: why it is moved; it stays in the history.
            force: move it although gates are not met; needs the scope ``admin`` and a reason.
            dry_run: only check the gates.
            after: the ``seq`` of the alias that you have seen: if it has been moved since, it is not moved. 0: it was
                never moved.

        Returns:
            The alias, whether it was ``moved``, and the ``findings`` of its gates.

        Raises:
            GateFailed: the version does not meet them; ``gates`` has the evidence, and ``supply`` sends the requests
                for what is missing.
        """
        params = self._query | ({"dry_run": "true"} if dry_run else {})
        options = json_body({"version": version, "reason": reason, "force": force}, **_condition(after))
        return self._connection.json("PUT", self._alias(alias), params=params, **options)

    def rollback(self, alias: str, *, reason: str | None = None, after: int | None = None) -> dict[str, Any]:
        """Move an alias back to the version that it held before; another rollback goes further back.

        Args:
            reason, after: as of ``move``.
        """
        options = json_body({"reason": reason}, **_condition(after))
        return self._connection.json("POST", f"{self._alias(alias)}/rollback", params=self._query, **options)

    def remove_alias(self, alias: str, *, after: int | None = None) -> None:
        """Let an alias hold no version; its gates and its history stay."""
        options: dict[str, Any] = {"params": self._query, "headers": _condition(after)}
        with self._connection.response("DELETE", self._alias(alias), **options):
            pass

    def _html(self) -> str:
        return cards.model(self.reference, self.aliases(), self.versions())

    @property
    def _names(self) -> Mapping[str, object]:
        return {"model_name": self.name}

    @property
    def _path(self) -> str:
        return f"/models/{segment(self.reference)}"

    @property
    def _model(self) -> str:
        return f"/models/{segment(self.name)}"

    def _alias(self, alias: str) -> str:
        return f"{self._model}/aliases/{segment(alias.removeprefix('@'))}"


def _condition(after: int | None) -> dict[str, str]:
    if after is None:
        return {}
    return {"If-None-Match": "*"} if after == 0 else {"If-Match": f'"{after}"'}
