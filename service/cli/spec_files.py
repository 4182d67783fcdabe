"""Files with specs, of jobs and of sweeps."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Final

import click

YAML: Final = frozenset({".yaml", ".yml"})
_CONVERT: Final = "python -c 'import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin), sys.stdout)'"
"""PyYAML is in the environment of the service."""


def refuse_yaml(path: Path) -> None:
    """Say how to convert a file of another format.

    Raises:
        click.UsageError: the file is YAML.
    """
    if path.suffix.lower() in YAML:
        source, target = (shlex.quote(str(name)) for name in (path, path.with_suffix(".json")))
        raise click.UsageError(f"specs are JSON; convert the file: {_CONVERT} < {source} > {target}")
