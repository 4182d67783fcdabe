"""Every hostile table, uploaded to the running stack: rejected with a reason, quickly, and with little memory."""

from __future__ import annotations

import pytest

from tests.security.conftest import Stack
from tests.security.hostile.hostile_tables import GOOD, Fields, hostile
from tests.security.hostile.meter import MAX_BYTES, MAX_S, Meter

pytestmark = pytest.mark.stack

CORPUS = list(hostile())


def test_the_corpus_is_large_and_a_good_table_is_accepted(stack: Stack) -> None:
    assert len({title for title, _, _ in CORPUS}) == len(CORPUS) >= 30
    with stack.client("ann") as http:
        response = http.post("/datasets", data={"name": "good-table"}, files={"table": GOOD})
        assert response.status_code == 201, response.text
        assert http.delete("/datasets/good-table").status_code == 204


@pytest.mark.parametrize(("title", "fields", "word"), CORPUS, ids=[title for title, _, _ in CORPUS])
def test_a_hostile_table_is_refused(stack: Stack, title: str, fields: Fields, word: str) -> None:
    texts = {name: value for name, value in fields.items() if isinstance(value, str)}
    files = {name: (name, value) for name, value in fields.items() if isinstance(value, bytes)}
    with stack.client("ann") as http, Meter(stack.home) as meter:
        response = http.post("/datasets", data={"name": "evil", **texts}, files=files)
    assert 400 <= response.status_code < 500, response.text
    assert response.json()["code"] == "invalid_upload"
    assert word in response.json()["detail"]
    assert "memory and time" not in response.text, "the reader itself broke, or was stopped by its limits"
    assert str(stack.home) not in response.text
    assert meter.seconds < MAX_S
    assert max(meter.web_bytes, meter.reader_bytes) < MAX_BYTES
    assert not list((stack.home / "artifacts" / "datasets").iterdir())
