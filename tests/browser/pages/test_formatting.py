"""The server and the page's scripts format values in the same way."""

from __future__ import annotations

from collections.abc import Callable

from service.spec import metric_info
from service.web.http import templates
from tests.browser.apps.simulated_worker import WebProcess
from tests.browser.conftest import Visit

FORMAT_VALUES = """async ([name, values]) => {
  const dom = await import(document.querySelector('link[href$="/dom.js"]').href);
  return values.map((value) => dom[name](value));
}"""


def test_page_and_service_format_sizes_durations_and_percentages_alike(
    open_window: Callable[..., Visit], serve_bare: Callable[..., WebProcess]
) -> None:
    page = open_window(serve_bare().url).open("/")
    sizes = [0, 1, 999, 1000, 1234, 99_949, 123_456, 1_000_000, 25_500_000, 999_999_999, 4_200_000_000, 3e12]
    assert page.evaluate(FORMAT_VALUES, ["bytes", sizes]) == [metric_info.size(size) for size in sizes]
    durations = [0, 0.4, 0.949, 0.95, 2.5, 89.4, 90, 150, 5399, 5400, 12_345, 172_799, 172_800, 216_000, 1e6]
    assert page.evaluate(FORMAT_VALUES, ["duration", durations]) == [
        metric_info.duration(duration) for duration in durations
    ]
    ratios = [0, 0.1234, 0.5, 0.987654, 1]
    assert page.evaluate(FORMAT_VALUES, ["percent", ratios]) == [templates.percentage(ratio) for ratio in ratios]
