"""Loaded by schemathesis: puts ids of existing objects into every second request."""

from __future__ import annotations

import json
import os
import zlib
from typing import Any

import schemathesis

KNOWN_IDS: dict[str, list[str]] = json.loads(os.environ["FUZZ_KNOWN"])


@schemathesis.hook
def map_path_parameters(context: Any, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
    if not path_parameters:
        return path_parameters
    checksum = zlib.crc32(repr(path_parameters).encode("utf-8", "surrogatepass"))
    if checksum % 2:
        return path_parameters
    return {
        name: KNOWN_IDS[name][checksum // 2 % len(KNOWN_IDS[name])] if KNOWN_IDS.get(name) else value
        for name, value in path_parameters.items()
    }
