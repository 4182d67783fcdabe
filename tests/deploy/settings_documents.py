"""Writes the declared settings into the documents that list them: ``python -m tests.deploy.settings_documents``."""

from __future__ import annotations

import re
from pathlib import Path

from service.runtime.settings import SETTINGS
from tests.deploy import chart_schema

ROOT = Path(__file__).parents[2]
BY_THE_SERVICES = {
    **dict.fromkeys(["DATABASE_URL", "DATABASE_PASSWORD_FILE", "BROKER_URL", "BROKER_PASSWORD_FILE"], "own services"),
    **dict.fromkeys(["HOST", "AUTH"], "the port is published on loopback"),
    "HOME": "the image sets it",
    **dict.fromkeys(["ARTIFACTS", "DATA"], "a volume is mounted at the default"),
    "PORT": "the port in the container; .env has the published one",
}
"""Settings that compose does not pass on as they are, with the reason."""
PASSED = [name for name in SETTINGS if name.removeprefix("TAPELINE_") not in BY_THE_SERVICES]
LINES = {name: f"{name}: ${{{name}:-}}\n" for name in PASSED}
LISTS = {
    "docs/configuration.md": (
        r"(?<=## Settings\n\n\| variable \| meaning \|\n\|---\|---\|\n)(\|.*\n)+",
        "".join(f"| `{name}` | {setting.meaning} |\n" for name, setting in SETTINGS.items()),
    ),
    "docker-compose.yml": (
        r"(?<=written by `make settings`:\n)(    TAPELINE_.*\n)+",
        "".join(4 * " " + line for line in LINES.values()),
    ),
    ".env.example": (
        r"(?<=written by `make settings`:\n)(#TAPELINE_.*\n)+",
        "".join(f"#{name}={SETTINGS[name].default_text}\n" for name in PASSED),
    ),
    "deploy/helm/tapeline/values.schema.json": (r"(?s)\A.*\Z", chart_schema.document()),
}
"""Of each file, the pattern of its list, or of the whole, and the list as declared."""


def updated(file: str) -> str:
    """The text of a file with the present list."""
    pattern, lines = LISTS[file]
    text, count = re.subn(pattern, lambda _: lines, (ROOT / file).read_text(encoding="utf-8"))
    assert count == 1, f"{file} has {count} lists of settings"
    return text


if __name__ == "__main__":
    for name in LISTS:
        (ROOT / name).write_text(updated(name), encoding="utf-8")
