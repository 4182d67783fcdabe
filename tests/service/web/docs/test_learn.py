"""The Learn page explains terms with examples from the reader's own jobs, and the glossary has the same texts."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from service import kinds
from service.access import keys
from service.access.keys import Scope
from service.kinds.pages import page_of
from service.web.core.core import EXTENSION, Core
from service.web.docs.learn import overfitting
from service.web.docs.terms import BY_METRIC, TERMS
from tests.service.web.conftest import MakeApp, SimulatedWorker
from tests.service.web.core.quota_clients import keyed
from tests.service.web.docs.glossary import GLOSSARY, updated
from tests.service.web.markup import one_line

ROOT = Path(__file__).parents[4]


def train(worker: SimulatedWorker, confusion: list[list[int]] | None = None, **metrics: list[float]) -> None:
    """Train the job that waits for as many epochs as there are values."""
    worker.claim()
    for epoch, values in enumerate(zip(*metrics.values(), strict=True), 1):
        worker.commit_epoch(epoch, metrics=dict(zip(metrics, values, strict=True)), confusion=confusion)
    worker.succeed()


def train_classifier(worker: SimulatedWorker) -> None:
    diagonal = [[90 if actual == predicted else 1 for predicted in range(10)] for actual in range(10)]
    losses = {"train_loss": [0.9, 0.4, 0.2], "val_loss": [0.8, 0.5, 0.7], "val_accuracy": [0.8, 0.9, 0.88]}
    train(worker, diagonal, **losses)


def sign_in(app: Flask, owner: str) -> FlaskClient:
    core: Core = app.extensions[EXTENSION]
    _, key = keys.create(core.database, name=owner, owner=owner, scope=Scope.SUBMIT)
    client = app.test_client()
    headers = {"Origin": "http://localhost"}
    assert client.post("/session", json={"key": key}, headers=headers).status_code == 201
    return client


def test_without_jobs_every_term_has_a_picture(client: FlaskClient) -> None:
    page = one_line(client.get("/ui/learn").text)
    cards = re.findall(r'<section class="card term" id="([^"]+)".*?</section>', page, re.DOTALL)
    assert cards == [term.id for term in TERMS]
    for card in re.findall(r'<section class="card term".*?</section>', page, re.DOTALL):
        assert re.search(r"<svg |<table |data-plot", card), card
    assert "Your job" not in page
    assert "<code>docs/learn/gan.md</code> in the repository" in page, "the service does not serve it"
    assert 'href="/ui/learn" aria-current="page"' in page


def test_the_examples_are_from_the_readers_latest_jobs(
    app: Flask, client: FlaskClient, worker: SimulatedWorker, submit: Callable[..., str]
) -> None:
    first = submit(client, name="an old one", epochs=3)
    train_classifier(worker)
    second = submit(client, name="the <newest>", epochs=3)
    train_classifier(worker)
    gan = submit(client, kind="gan", name="a painter", epochs=2)
    train(worker, frechet_distance=[400.0, 200.0])
    submit(client, name="not finished", epochs=3)
    page = client.get("/ui/learn").text
    assert f'<a href="/ui/jobs/{second}">the &lt;newest&gt;</a>: the validation loss was lowest in epoch 2 of 3' in page
    assert "it overfits" in page
    assert f'data-address="/jobs/{second}/calibration"' in page
    assert "accuracy 88.0% of 990, 95% CI" in page
    assert f'src="/jobs/{gan}/samples/latest.png"' in page
    assert f'href="/ui/play/{gan}"' in page
    assert first not in page
    assert "not finished" not in page


def test_nobody_sees_the_jobs_of_others(
    make_app: MakeApp, sqlite_url: str, make_worker: Callable[[Flask], SimulatedWorker]
) -> None:
    app = keyed(make_app, sqlite_url)
    own, headers = {"ann": "mine alone"}, {"Origin": "http://localhost"}
    ann, bob, stranger = sign_in(app, "ann"), sign_in(app, "bob"), app.test_client()
    job = ann.post("/jobs", json={"kind": "classifier", "name": own["ann"], "epochs": 3}, headers=headers).json["id"]
    train_classifier(make_worker(app))
    token = ann.post("/shares", json={"path": f"/jobs/{job}"}, headers=headers).json["token"]
    assert own["ann"] in ann.get("/ui/learn").text
    assert own["ann"] not in bob.get("/ui/learn").text
    for reader in (stranger, app.test_client()):
        shown = reader.get("/ui/learn")
        assert shown.status_code == 200
        assert own["ann"] not in shown.text
        reader.get(f"/shared/{token}", headers={"Accept": "text/html"})
        assert own["ann"] in reader.get(f"/ui/jobs/{job}").text
        assert "/ui/learn#confusion-matrix" in reader.get(f"/ui/jobs/{job}").text
        assert own["ann"] not in reader.get("/ui/learn").text


@pytest.mark.parametrize(
    ("train_loss", "validation_loss", "expected"),
    [
        ([3.0, 2.0, 1.0], [3.0, 2.0, 2.5], {"best": 2, "last": 3, "rises": True}),
        ([3.0, 2.0, 1.0], [3.0, 2.0, 2.05], {"best": 2, "last": 3, "rises": False}),
        ([3.0, 2.0, 2.5], [3.0, 2.0, 2.5], {"best": 2, "last": 3, "rises": False}),
        ([3.0, float("nan")], [3.0, 1.0], {"best": 1, "last": 1, "rises": False}),
        ([None, None], [None, None], None),
    ],
)
def test_overfitting_is_a_rise_of_the_validation_loss_alone(
    train_loss: list[float], validation_loss: list[float], expected: object
) -> None:
    assert overfitting(range(1, len(train_loss) + 1), train_loss, validation_loss) == expected


def test_the_glossary_has_the_terms_of_the_page() -> None:
    text = GLOSSARY.read_text(encoding="utf-8")
    assert text == updated(), "run `make glossary`"
    names = re.findall(r"^\| \*\*(.+)\*\* \|", text, re.MULTILINE)
    assert len(set(names)) == len(names) > len(TERMS)


def test_each_i_of_a_card_leads_to_a_term() -> None:
    texts = [path.read_text("utf-8") for path in (ROOT / "service").rglob("templates/*.html")]
    calls = re.findall(r"parts\.about\((.*?)\) }}", "".join(texts))
    linked = {id_ for call in calls for id_ in re.findall(r'"([a-z-]+)"', call)}
    pages = [page_of(kind.name) for kind in kinds.TRAINED]
    linked |= {term for page in pages for term in (page.curves_term, page.samples_term) if term}
    assert len(linked) > 6
    assert linked <= {term.id for term in TERMS}
    assert BY_METRIC.keys() >= {"val_loss", "frechet_distance"}


def test_each_lesson_that_a_term_names_exists() -> None:
    lessons = {term.lesson for term in TERMS if term.lesson is not None}
    assert lessons == {path.stem for path in (ROOT / "docs" / "learn").glob("*.md")}
