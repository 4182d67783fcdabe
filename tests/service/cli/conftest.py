"""A quickly trained job, for the commands that need one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from click.testing import Result

from service.client import Client
from tests.service.client.stub.scenes import Recordings

Run = Callable[..., Result]

TINY = {
    "kind": "classifier",
    "epochs": 2,
    "layers": [{"units": 10, "activation": "softmax"}],
    "checkpoint": {"keep_last": 2},
}


@pytest.fixture(scope="session")
def trained(recordings: Recordings) -> str:
    with recordings.scene("fixtures", "trained") as url, Client(url) as client:
        job = client.submit(TINY).wait(timeout_s=120)
        assert job.status == "succeeded"
        return job.id
