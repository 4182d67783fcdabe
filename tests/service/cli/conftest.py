"""A quickly trained job, for the commands that need one."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from click.testing import Result

Run = Callable[..., Result]

TINY = {
    "kind": "classifier",
    "epochs": 2,
    "layers": [{"units": 10, "activation": "softmax"}],
    "checkpoint": {"keep_last": 2},
}


@pytest.fixture
def trained(run: Run) -> str:
    result = run("train", "-", "--json", spec=TINY)
    job_id: str = json.loads(result.stdout)["id"]
    assert run("watch", job_id).exit_code == 0
    return job_id
