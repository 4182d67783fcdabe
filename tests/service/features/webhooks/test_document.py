"""The receivers in docs/webhooks.md do what the text says."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from service.features.webhooks.delivery import deliveries
from service.features.webhooks.outbox import MessageType
from service.features.webhooks.protocol import signing

DOCUMENT = (Path(__file__).parents[4] / "docs" / "webhooks.md").read_text(encoding="utf-8")


def script(name: str) -> str:
    match = re.search(rf'```python title="{name}"\n(.*?)```', DOCUMENT, re.DOTALL)
    assert match is not None
    return match[1]


def test_the_receiver_accepts_a_message_once_and_refuses_a_forged_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = signing.new_secret()
    monkeypatch.setenv("SECRET", secret)
    receiver: dict[str, Any] = {"__name__": "receiver"}
    exec(script("receiver.py"), receiver)  # the text of the document
    client = receiver["app"].test_client()
    data = json.dumps({"id": "job_1", "url": "/jobs/job_1", "name": "digits", "status": "failed"})
    body = deliveries.body_of("job.failed", 0, data, "https://tapeline.example").encode()
    headers = signing.headers(
        "evt_1", int(time.time()), body, secrets=[secret], signing_keys=[signing.new_signing_key()]
    )
    for _ in range(2):
        assert client.post("/tapeline", data=body, headers=headers).status_code == 204
    assert client.post("/tapeline", data=body + b" ", headers=headers).status_code == 400
    assert capsys.readouterr().out == "job.failed digits https://tapeline.example/jobs/job_1\n"


def test_every_type_of_message_is_documented() -> None:
    for kind in [*MessageType, "webhook.test"]:
        assert f"`{kind}`" in DOCUMENT, kind


def test_the_schedule_in_the_document_is_that_of_the_code() -> None:
    units = {"s": 1, "min": 60, "h": 3600}
    [text] = re.findall(r"sent again after (.*?), each", DOCUMENT.replace("\n", " "))
    times = re.findall(r"(\d+) (s|min|h)\b", text)
    assert [int(number) * units[unit] for number, unit in times] == list(deliveries.RETRY_DELAYS_S)
