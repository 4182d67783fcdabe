"""The form for a new job: sets and reads its fields, and locates its parts."""

from __future__ import annotations

import json
from typing import Any

from playwright.sync_api import Locator, Page, expect

from service.spec.presets.definitions import PRESETS

EVERY_PRESET = [(kind.value, name) for kind, presets in PRESETS.items() for name in presets]


VISIBLE_FIELDS = """() => Object.fromEntries([...document.querySelectorAll('#sections [id^=field-]')]
  .filter((item) => item.matches('input, select') && item.checkVisibility())
  .map((item) => [item.id, item.type === 'checkbox' ? item.checked : item.value]))"""


def form_json(page: Page) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(page.input_value("#json"))
    return document


def open_all_sections(page: Page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach((item) => item.open = true)")


def choose(page: Page, kind: str, preset: str) -> None:
    page.locator(f"#kinds button[value={kind}]").click()
    page.locator(f"#presets button[value={preset}]").click()
    expect(page.locator(f"#presets button[value={preset}]")).to_have_attribute("aria-pressed", "true")


def layer_types(page: Page) -> list[str]:
    """The types of the layers, from the top of the screen to the bottom."""
    rows = page.locator("#field-layers > li").all()
    boxes = [row.bounding_box() for row in rows]
    tops = [box["y"] for box in boxes if box is not None]
    assert tops == sorted(tops)
    return [row.locator("select").first.input_value() for row in rows]


def layer_outputs(page: Page, selector: str = "#field-layers") -> list[tuple[str, str]]:
    """The displayed output shape and parameter count of each layer."""
    rows = page.locator(f"{selector} > li .output").all()
    return [(row.locator(".shape").inner_text(), row.locator(".muted").inner_text().strip()) for row in rows]


def handle(page: Page, number: int) -> Locator:
    return page.locator(f"#field-layers > li:nth-child({number}) .handle")


def press(button: Locator, key: str) -> None:
    """Press a key once the button has the focus: an earlier action may still be moving it."""
    button.focus()
    expect(button).to_be_focused()
    button.press(key)
