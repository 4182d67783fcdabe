"""Finds Chromium and starts it without any network access of its own."""

from __future__ import annotations

import os
import shutil

from playwright.sync_api import Browser, Playwright

_FLAGS = (
    "--disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync"
)


def find() -> str | None:
    """Where it is: ``CHROMIUM`` may say so."""
    return os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


def launch(playwright: Playwright, path: str) -> Browser:
    as_root = ["--no-sandbox"] if os.geteuid() == 0 else []
    return playwright.chromium.launch(executable_path=path, args=[*_FLAGS.split(), *as_root])
