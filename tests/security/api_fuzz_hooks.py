"""Loaded by schemathesis: gives every second request ids of existing objects, and jobs that end quickly."""

from __future__ import annotations

import json
import os
import zlib
from typing import Any

import schemathesis

KNOWN: dict[str, list[str]] = json.loads(os.environ["FUZZ_KNOWN"])


@schemathesis.hook
def map_path_parameters(context: Any, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
    if not path_parameters:
        return path_parameters
    drawn = zlib.crc32(repr(path_parameters).encode("utf-8", "surrogatepass"))
    if drawn % 2:
        return path_parameters
    return {
        name: KNOWN[name][drawn // 2 % len(KNOWN[name])] if KNOWN.get(name) else value
        for name, value in path_parameters.items()
    }
