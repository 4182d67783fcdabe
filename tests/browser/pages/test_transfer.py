"""The number of bytes that a page transfers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.browser.conftest import Visit

MAX_BYTES = 500_000
"""Sum of the bodies of a page as transferred: compressed ones in their compressed size."""


@pytest.mark.parametrize("name", ["reader", "painter"])
def test_the_page_of_a_trained_job_transfers_at_most_half_a_megabyte(
    open_site: Callable[..., Visit], jobs: dict[str, Any], name: str
) -> None:
    visit = open_site(height=3000, own=True)  # what lies below the fold is loaded too
    sizes: dict[str, int] = {}
    session = visit.page.context.new_cdp_session(visit.page)
    session.send("Network.enable")
    urls: dict[str, str] = {}
    session.on("Network.responseReceived", lambda event: urls.update({event["requestId"]: event["response"]["url"]}))
    session.on(
        "Network.loadingFinished",
        lambda event: sizes.update({urls.get(event["requestId"], "?"): int(event["encodedDataLength"])}),
    )
    page = visit.open(f"/ui/jobs/{jobs[name]['id']}")
    page.locator(".plot canvas").first.wait_for()
    page.evaluate("document.querySelector('#more-curves').open = true")
    page.locator(".others .plot canvas").first.wait_for()
    page.wait_for_load_state("networkidle")
    largest_first = sorted(((size, url.rpartition("/")[2]) for url, size in sizes.items()), reverse=True)
    print(f"{name}: {sum(sizes.values()):,} bytes", largest_first[:6])
    assert any("uPlot" in url for url in sizes)
    assert any("/samples/" in url for url in sizes)
    assert sum(sizes.values()) <= MAX_BYTES, largest_first
