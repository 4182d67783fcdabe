"""Accessibility violations that axe reports for a page."""

from __future__ import annotations

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page

_SERIOUS_VIOLATIONS = """async () => {
  const { violations } = await axe.run({ resultTypes: ["violations"] });
  return violations
    .filter(({ impact }) => ["serious", "critical"].includes(impact))
    .map(({ id, help, nodes }) => [id, help, ...nodes.slice(0, 3).map(({ html }) => html.slice(0, 120))].join(": "));
}"""


def serious_violations(page: Page) -> list[str]:
    if page.evaluate("typeof axe === 'undefined'"):
        page.evaluate(AXE_SCRIPT)
    violations: list[str] = page.evaluate(_SERIOUS_VIOLATIONS)
    return violations
