"""The endpoints of the registry."""

from __future__ import annotations

from typing import Final

from service.features.registry import inference
from service.web.core.rooms import Operations

OPERATIONS: Final = Operations(blueprint=inference.blueprint)
