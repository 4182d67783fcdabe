from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.browser.apps.simulated_worker import WebProcess


@pytest.fixture
def bare(serve_bare: Callable[..., WebProcess]) -> WebProcess:
    return serve_bare()
