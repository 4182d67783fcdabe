"""Models of the registry: versions that predict as jobs do, and aliases that move under gates."""

from __future__ import annotations

from pathlib import Path

import pytest

from tapeline import Client, GateFailed, Job, Model, Sweep
from tapeline.inputs import given
from tests.tapeline.stub.scenes import Recordings

ROW = {"sepal_length_cm": 5.1, "sepal_width_cm": 3.5, "petal_length_cm": 1.4, "petal_width_cm": 0.2}


@pytest.fixture(scope="session")
def irises(recordings: Recordings) -> list[str]:
    """The ids of two trained jobs with different settings."""
    with recordings.scene("registry", "irises") as url, Client(url) as client:
        rates = ({"optimizer.learning_rate": rate} for rate in (0.002, 0.03))
        jobs = [client.train(dataset="iris", epochs=3, settings=setting) for setting in rates]
        return [job.wait(timeout_s=120).id for job in jobs]


def registered(client: Client, name: str, jobs: list[str]) -> Model:
    for job in jobs:
        client.handle(job).register(name)
    return client.model(name)


def test_a_version_predicts_and_is_exported_as_its_job_is(client: Client, irises: list[str], tmp_path: Path) -> None:
    registered(client, "used", irises).move("champion", 1)
    model, job = client.model("used@champion"), client.job(irises[0])
    assert (model.version, model.job.id, model.kind, model["checkpoint"]) == (1, job.id, "classifier", job.best_epoch)
    assert model.metrics["val_accuracy"] == job.results()["best"]["metrics"]["val_accuracy"]
    prediction = model.predict(ROW)
    assert (prediction.model, prediction) == ("used:1", job.predict(ROW))
    assert "used:1, checkpoint of epoch" in repr(prediction)
    assert model.predict([list(ROW.values())]).labels == prediction.labels, "the columns are those of its dataset"
    (tmp_path / "rows.csv").write_text("sepal_length_cm\n5.1\n")
    assert model.predict(tmp_path / "rows.csv").model == "used:1"
    assert model.predict_table(tmp_path / "rows.csv", tmp_path / "out.csv")["rows"] == 1
    assert model.export("torch", tmp_path / "model.zip").stat().st_size > 1000
    with pytest.raises(ValueError, match="is one checkpoint"):
        model.predict(ROW, checkpoint="latest")
    of_another = Model(model._connection, "used@champion", owner="ben")
    with pytest.raises(ValueError, match="of another owner"):
        of_another.predict(ROW)
    with pytest.raises(ValueError, match="of another owner"):
        client.predict_dataset(of_another, "iris")
    assert repr(model) == "<Model used@champion>"
    assert model.page == f"{client.server}/ui/models/used"


def test_all_rows_of_a_call_are_predicted_by_the_version_that_answered_first(
    client: Client, irises: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(given, "_MAX_ROWS", 2)  # of a request
    model = registered(client, "many", irises)
    prediction = client.model("many@latest").predict([ROW] * 3)
    assert (prediction.model, len(prediction.labels)) == ("many:2", 3)
    assert client.model("many").version == model["latest"] == 2


def test_a_failed_gate_is_an_error_with_the_evidence_and_what_is_missing_can_be_supplied(
    client: Client, irises: list[str]
) -> None:
    model = registered(client, "led", irises)
    assert model.move("champion", 1, after=0)["moved"]
    better = {"better_than": "@champion", "metric": "val_loss", "seeds": 2, "confidence": 0.8}
    gates = [{"reproduced": True}, better, {"metric": "val_loss", "max": 100}]
    assert model.set_gates("champion", gates)["gates"][0] == {"reproduced": True}
    assert not model.move("champion", 2, dry_run=True)["passed"]
    with pytest.raises(GateFailed) as caught:
        model.move("champion", 2)
    assert [gate["passed"] for gate in caught.value.gates] == [False, False, True]
    headline, *lines = str(caught.value).splitlines()
    assert headline == "led:2 does not meet 2 of 3 gates of @champion"
    assert [line.split()[0] for line in lines] == ["no", "no", "ok"]
    started = model.supply(caught.value.gates)
    assert [type(item) for item in started] == [Job, Sweep, Sweep]
    for item in started:
        assert item.wait(timeout_s=120).status == "succeeded"
    assert model.supply(model.move("champion", 2, dry_run=True)["findings"]) == []
    assert model.move("champion", 2, reason="learns faster", after=1)["version"] == 2
    assert model.alias("@champion")["seq"] == 2
    entries = model.history("champion")
    assert [(entry["to_version"], entry["reason"]) for entry in entries] == [(2, "learns faster"), (1, None)]
    assert [gate["passed"] for gate in entries[0]["gates"]] == [True, True, True]
    assert model.rollback("champion")["version"] == 1


def test_models_are_listed_shown_and_deleted(client: Client, irises: list[str]) -> None:
    model = registered(client, "listed", irises)
    model.move("champion", 2, force=True, reason="no gate fails")
    (found,) = (item for item in client.models() if item.name == "listed")
    assert (found["aliases"], found.version, found.kind) == ({"champion": 2}, 2, "classifier")
    frame = model.versions().to_frame()
    assert list(frame["version"]) == [2, 1]
    assert "val_accuracy" in frame.columns
    card = model._repr_html_()
    assert all(text in card for text in (">listed<", "@champion is version 2", "val accuracy"))
    (alias,) = model.aliases()
    assert (alias["alias"], alias["forced"]) == ("champion", False)
    model.remove_alias("champion", after=1)
    model.delete_version(1)
    model.delete()
    assert "listed" not in {item.name for item in client.models()}
