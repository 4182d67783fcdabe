"""Accessibility violations that axe reports for a page."""

from __future__ import annotations

from typing import Any

from axe_playwright_python.sync_playwright import Axe


def serious_violations(page: Any) -> list[str]:
    violations = Axe().run(page).response["violations"]
    return [
        f"{item['id']}: {item['help']}: {[node['html'][:120] for node in item['nodes'][:3]]}"
        for item in violations
        if item["impact"] in ("serious", "critical")
    ]
