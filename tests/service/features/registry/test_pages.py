"""The pages of the model registry as the server renders them."""

from __future__ import annotations

import re

import pytest
from flask import Flask
from flask.testing import FlaskClient

from service.access.keys import Scope
from service.features.registry.gates import gate_text
from tests.service.features.registry.test_operations import Submit, move, register, set_gates, train
from tests.service.web.conftest import MakeApp, SimulatedWorker
from tests.service.web.core.quota_clients import client_of, keyed
from tests.service.web.markup import one_line

HTML = {"Accept": "text/html"}


def test_the_list_begins_with_how_to_register_and_then_names_models(
    client: FlaskClient, worker: SimulatedWorker, submit: Submit
) -> None:
    assert "tapeline --server http://localhost models register JOB digits" in client.get("/ui/models").text
    assert client.get("/models", headers=HTML).headers["Location"] == "/ui/models"
    register(client, train(client, worker, submit))
    move(client, 1)
    page = client.get("/ui/models").text
    assert all(text in page for text in ('href="/ui/models/digits"', "@champion is 1", "val accuracy", "90.00%"))
    register(client, train(client, worker, submit, seed=1), name="more")
    assert "More models" in client.get("/ui/models?limit=1").text


def test_a_reference_leads_a_browser_to_the_version(
    client: FlaskClient, worker: SimulatedWorker, submit: Submit
) -> None:
    register(client, train(client, worker, submit))
    move(client, 1)
    redirect = client.get("/models/digits@champion", headers=HTML).headers["Location"]
    assert client.get(redirect).headers["Location"] == "/ui/models/digits#v1"
    missing = client.get("/ui/models/faces", headers=HTML)
    assert (missing.status_code, 'href="/ui/models">All models' in missing.text) == (404, True)


def test_the_page_has_gates_in_words_and_the_evidence_of_each_move(
    client: FlaskClient, worker: SimulatedWorker, submit: Submit
) -> None:
    job = train(client, worker, submit, epochs=2)
    register(client, job, note="<b>the first</b>")
    register(client, job, checkpoint=1)
    set_gates(client, {"metric": "val_accuracy", "min": 0.95}, {"approvals": 1})
    for number in range(24):
        move(client, 1 + number % 2, force=True, reason=f"reason {number}")
    page = one_line(client.get("/ui/models/digits").text)
    assert all(
        text in page for text in ("val accuracy at least 95.00%", "approved by 1 other key", "History: 24 moves")
    )
    assert "&lt;b&gt;the first&lt;/b&gt;" in page
    assert "val_accuracy is 90.00%; it must be at least 95.00%" in page
    assert "forced: gates were not met" in page
    assert ("reason 23<" in page, "reason 3<" in page) == (True, False)
    older = re.search(r'href="([^"]*moves_before[^"]*)"', page)
    assert older is not None
    page = one_line(client.get(older[1].replace("&amp;", "&")).text)
    assert ("reason 4<" in page, "reason 3<" in page) == (False, True)
    note = one_line(client.get(f"/ui/jobs/{job}").text)
    assert '<a href="/ui/models/digits#v1">digits:1</a> (epoch 2' in note
    assert "@champion" in note


@pytest.mark.parametrize(
    ("gate", "text"),
    [
        ({"metric": "val_loss", "min": 0.1, "max": 0.5}, "val loss at least 0.1 and at most 0.5"),
        (
            {"better_than": ":3", "metric": "val_accuracy", "seeds": 5, "confidence": 0.99, "margin": 0.01},
            "better than :3 in val accuracy by more than 1.00%, over 5 seeds, at 99% confidence",
        ),
        ({"reproduced": True}, "reproduced bit for bit"),
        ({"certificate": True}, "certified"),
        ({"max_bytes": 2_500_000}, "checkpoint of at most 2.5 MB"),
        ({"approvals": 2}, "approved by 2 other keys"),
        ({"of_a_later_version": True, "n": 3}, "of_a_later_version, n 3"),
    ],
)
def test_a_gate_is_described_in_words(gate: dict[str, object], text: str) -> None:
    assert gate_text(gate) == text


class TestWithKeys:
    """What a key may do has a button."""

    @pytest.fixture
    def app(self, make_app: MakeApp, sqlite_url: str) -> Flask:
        return keyed(make_app, sqlite_url)

    def test_a_page_has_the_buttons_of_its_reader(self, app: Flask, worker: SimulatedWorker, submit: Submit) -> None:
        ann, reader = client_of(app, "ann", scope=Scope.SUBMIT), client_of(app, "ann", scope=Scope.READ)
        admin, bob = client_of(app, "root", scope=Scope.ADMIN), client_of(app, "bob", scope=Scope.SUBMIT)
        register(ann, train(ann, worker, submit))
        move(ann, 1)
        buttons = {
            client: {name for name in ("move", "rollback", "gates", "approve") if f"data-{name}=" in page}
            for client, page in (
                (ann, ann.get("/ui/models/digits").text),
                (reader, reader.get("/ui/models/digits").text),
                (admin, admin.get("/ui/models/digits?owner=ann").text),
            )
        }
        assert buttons[ann] == {"move", "rollback", "approve"}
        assert buttons[reader] == set()
        assert buttons[admin] == {"move", "rollback", "gates", "approve"}
        assert bob.get("/ui/models/digits").status_code == 404
        assert "ann" in admin.get("/ui/models?owner=ann").text
        assert '"owner": "ann"' in admin.get("/ui/models/digits?owner=ann").text
