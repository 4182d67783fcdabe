"""Finds Chromium and starts it without background network traffic."""

from __future__ import annotations

import os
import shutil

from playwright.sync_api import Browser, Playwright

_FLAGS = (
    "--disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync"
)


def find() -> str | None:
    """Return the path in ``CHROMIUM`` if it is set, otherwise that of the first browser on ``PATH``."""
    return os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


def launch(playwright: Playwright, path: str) -> Browser:
    root_flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    return playwright.chromium.launch(executable_path=path, args=[*_FLAGS.split(), *root_flags])
