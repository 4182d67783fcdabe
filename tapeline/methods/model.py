"""Operations of the API: Model. Written by `make client`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tapeline.methods.calls import BoundCalls, given


class ModelMethods(BoundCalls):
    """Methods of ``Model``."""

    def delete(self) -> None:
        """Delete a model with its versions and history; its jobs stay.

        Remove its aliases and clear their gates first.
        """
        self._nothing("DELETE", "/models/{model_name}")

    def aliases(self) -> list[dict[str, Any]]:
        """List the aliases of a model, those that only have gates or a history included."""
        return self._items("GET", "/models/{model_name}/aliases")

    def alias(self, alias: str) -> dict[str, Any]:
        """Show an alias. Its ``ETag`` changes with each move, for ``If-Match``."""
        return self._send("GET", "/models/{model_name}/aliases/{alias}", {"alias": alias.removeprefix("@")})

    def set_gates(self, alias: str, gates: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Set what a version must meet before an alias moves to it.

        The body is ``{"gates": [...]}``, or the list alone. Requires the scope ``admin``. A gate is one of ``{"metric":
        "val_accuracy", "min": 0.97}`` (or ``max``), ``{"better_than": "@champion", "metric": "val_accuracy", "seeds":
        5, "confidence": 0.95, "margin": 0}``, ``{"reproduced": true}``, ``{"certificate": true}``, ``{"max_bytes":
        1000000}`` and ``{"approvals": 1}``. The version that the alias holds now is not checked.

        Args:
            gates: An empty list: nothing.
        """
        return self._send(
            "PUT",
            "/models/{model_name}/aliases/{alias}/gates",
            {"alias": alias.removeprefix("@")},
            body=given(gates=gates),
        )

    def delete_version(self, version: int) -> None:
        """Delete a version that no alias holds; its job stays, and can be deleted then. The number is not used
        again.
        """
        self._nothing("DELETE", "/models/{model_name}/versions/{version}", {"version": version})

    def approve(self, version: int, note: str | None = None) -> dict[str, Any]:
        """Approve a version, with another key than the one that registered it: of the same owner, or of an admin.

        Args:
            note: What was checked.
        """
        return self._send(
            "POST",
            "/models/{model_name}/versions/{version}/approvals",
            {"version": version},
            body=given(note=note),
            repeatable=True,
        )
