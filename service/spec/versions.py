"""The version of specs: which jobs a worker can train."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

RELEASES: Final[Mapping[int, str]] = {1: "0.2.0"}
"""The first release whose workers train the specs of each version. A field, a value or a kind that earlier workers do
not know, or would train otherwise, needs a new one: these leave such jobs in the queue."""
SPEC_VERSION: Final = max(RELEASES)
"""Of the specs that this code accepts, and the newest that its workers claim."""
