from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from service.jobs import leases
from service.jobs.leases import Usage
from service.schema.findings import Advice, Finding
from service.states import FindingCode, Severity
from service.storage.tables import Job
from tests.service.jobs.leases import renew
from tests.service.web.markup import one_line

Submit = Callable[..., str]


def test_results_before_the_first_epoch_have_every_field_but_no_values(client: FlaskClient, submit: Submit) -> None:
    job_id = submit(client)
    assert client.get(f"/jobs/{job_id}/results").json == {
        "job": job_id,
        "final": False,
        "status": "queued",
        "stopped_by_sweep": False,
        "metrics": {},
        "intervals": {},
        "trained_seconds": 0.0,
        "test_accuracy": None,
        "test_rmse": None,
        "test_mae": None,
        "test_r2": None,
        "test_loss": None,
        "test_epoch": None,
        "best": None,
        "checkpoints": {"best": None, "latest": None},
        "samples": {"latest": None, "film": None, "films": None},
        "plots": {},
        "artifacts": [],
        "has_more": False,
        "next_cursor": None,
        "artifact_count": 0,
        "sizes": {"checkpoint": 0, "sample": 0},
        "size_bytes": 0,
        "mixed_provenance": [],
        "result_digest": None,
        "error": None,
    }


def test_results_list_the_best_and_latest_checkpoints_and_all_files(
    either_app: Flask, make_worker: Any, submit: Submit
) -> None:
    client, worker = either_app.test_client(), make_worker(either_app)
    job_id = submit(client)
    worker.claim()
    for epoch in range(1, 6):
        worker.commit_epoch(epoch, best=epoch == 2, keep_last=2)
    running = client.get(f"/jobs/{job_id}/results").json
    assert (running["final"], running["result_digest"]) == (False, None)
    worker.succeed()
    results = client.get(f"/jobs/{job_id}/results").json
    assert (results["final"], results["status"], results["result_digest"][:7]) == (True, "succeeded", "sha256:")
    assert results["best"] == {"epoch": 2, "metrics": {"train_loss": 0.5, "val_accuracy": 0.9}, "intervals": {}}
    assert results["metrics"]["train_loss"] == 0.2
    best, latest = results["checkpoints"]["best"], results["checkpoints"]["latest"]
    assert (best["epoch"], best["best"], best["latest"]) == (2, True, False)
    assert (latest["epoch"], latest["best"], latest["latest"]) == (5, False, True)
    assert results["samples"]["latest"]["url"] == f"/jobs/{job_id}/samples/5.png"
    kinds = [(item["kind"], item["epoch"]) for item in results["artifacts"]]
    assert kinds == [("checkpoint", 2), ("checkpoint", 4), ("checkpoint", 5)] + [("sample", n) for n in range(1, 6)]
    by_kind = {
        kind: sum(item["size_bytes"] for item in results["artifacts"] if item["kind"] == kind) for kind, _ in kinds
    }
    assert results["sizes"] == by_kind
    assert results["size_bytes"] == sum(by_kind.values()) == client.get(f"/jobs/{job_id}").json["size_bytes"] > 30_000
    assert results["samples"]["films"]["gif"] == results["samples"]["film"]
    addresses = [best["url"], latest["url"], *results["samples"]["films"].values(), *results["plots"].values()]
    addresses += [item["url"] for item in results["artifacts"]]
    for address in addresses:
        with client.get(address) as answer:
            assert answer.status_code == (404 if "confusion" in address else 200), address


def test_gan_without_a_best_epoch_calls_its_latest_checkpoint_best(
    client: FlaskClient, worker: Any, submit: Submit
) -> None:
    job_id = submit(client, kind="gan")
    worker.claim()
    worker.commit_epoch(1, best=False)
    worker.commit_epoch(2, best=False)
    results = client.get(f"/jobs/{job_id}/results").json
    assert results["best"] is None
    assert results["checkpoints"]["best"]["epoch"] == results["checkpoints"]["latest"]["epoch"] == 2
    assert "confusion" not in results["plots"]
    with client.get(f"/jobs/{job_id}/checkpoints/best") as answer:
        assert answer.headers["ETag"].strip('"') == results["checkpoints"]["best"]["sha256"]


def test_failed_job_keeps_its_error_and_its_last_checkpoint(client: FlaskClient, worker: Any, submit: Submit) -> None:
    job_id = submit(client)
    worker.claim()
    worker.commit_epoch(1)
    worker.fail("diverged")
    results = client.get(f"/jobs/{job_id}/results").json
    assert results["error"]["code"] == "diverged"
    assert results["final"] is True
    assert results["checkpoints"]["latest"]["epoch"] == 1


def test_metrics_are_columns_with_null_for_non_finite_values(
    either_app: Flask, make_worker: Any, submit: Submit
) -> None:
    client, worker = either_app.test_client(), make_worker(either_app)
    job_id = submit(client)
    worker.claim()
    worker.commit_epoch(1, metrics={"train_loss": 2.5, "late": math.inf})
    worker.commit_epoch(2, metrics={"train_loss": math.nan})
    answer = client.get(f"/jobs/{job_id}/metrics")
    table = json.loads(answer.text, parse_constant=reject_constant)
    assert table["epochs"] == [1, 2]
    assert table["series"] == {"train_loss": [2.5, None], "late": [None, None]}
    assert client.get(f"/jobs/{job_id}").json["metrics"] == {"train_loss": None}
    exported = client.get(f"/jobs/{job_id}/metrics?format=csv")
    header = "epoch,train_loss,late,seconds,cpu_seconds,memory_bytes"
    assert exported.text == f"{header}\n1,2.5,,0.5,,\n2,,,0.5,,\n"
    assert exported.content_type == "text/csv; charset=utf-8"
    assert job_id in exported.headers["Content-Disposition"]
    text = ""
    with client.get(f"/jobs/{job_id}/stream", buffered=False) as stream:
        while text.count("event: metrics\n") < 2:
            text += next(stream.response).decode()
    assert "NaN" not in text
    assert "Infinity" not in text


def mode_collapse(epoch: int) -> Finding:
    return Finding(
        code=FindingCode.MODE_COLLAPSE,
        severity=Severity.ERROR,
        epoch=epoch,
        message="the generator makes one picture again and again",
        numbers={"sample_diversity": 0.01},
        advice=[Advice({"initializer": "glorot", "optimizer.beta1": 0.5}, "together"), Advice({}, "fewer layers")],
    )


def test_findings_appear_in_the_job_its_metrics_its_log_and_its_page(
    either_app: Flask, make_worker: Any, submit: Submit
) -> None:
    client, worker = either_app.test_client(), make_worker(either_app)
    job_id = submit(client, kind="gan")
    worker.claim()
    for epoch, health in ((1, []), (2, [mode_collapse(2)]), (3, [mode_collapse(2)]), (4, []), (5, [mode_collapse(5)])):
        worker.commit_epoch(epoch, health=health)
    expected = {
        "code": "mode_collapse",
        "severity": "error",
        "epoch": 5,
        "message": "the generator makes one picture again and again",
        "numbers": {"sample_diversity": 0.01},
        "advice": [
            {"settings": {"initializer": "glorot", "optimizer.beta1": 0.5}, "reason": "together"},
            {"settings": {}, "reason": "fewer layers"},
        ],
    }
    assert client.get(f"/jobs/{job_id}").json["health"] == [expected]
    assert client.get("/jobs").json["data"][0]["health"] == [expected]
    findings = client.get(f"/jobs/{job_id}/metrics").json["findings"]
    assert [(item["code"], item["since"], item["until"]) for item in findings] == [
        ("mode_collapse", 2, 4),
        ("mode_collapse", 5, None),
    ]
    events = [item for item in client.get(f"/jobs/{job_id}/events").json["data"] if item["type"] == "health"]
    assert [(item["state"], item["epoch"], item["since"]) for item in events] == [
        ("found", 2, 2),
        ("over", 4, 2),
        ("found", 5, 5),
    ]
    page = one_line(client.get(f"/ui/jobs/{job_id}").text)
    assert "since epoch 5: the generator makes one picture again and again." in page
    assert "<code>initializer=glorot</code> <code>optimizer.beta1=0.5</code> together" in page
    assert re.search(r'Mode collapse</strong><a class="learn-link" href="/ui/learn#mode-collapse"', page)
    assert page.count(f'href="/ui/new?like={job_id}&amp;advice=mode_collapse.') == 1, "only where there is a setting"


def test_advice_stored_as_text_by_an_earlier_version_is_still_shown(
    either_app: Flask, make_worker: Any, submit: Submit
) -> None:
    client, worker = either_app.test_client(), make_worker(either_app)
    job_id = submit(client, kind="gan")
    worker.claim()
    worker.commit_epoch(1, health=[mode_collapse(1)])
    with worker.database.write() as session:
        job = session.get(Job, job_id)
        assert job is not None
        assert job.health[0]["advice"] == ["initializer=glorot optimizer.beta1=0.5; together", "fewer layers"], (
            "the previous release reads text"
        )
        assert "budget" not in job.resolved, "and refuses a spec with a field that it does not know"
        without_steps = {name: value for name, value in job.health[0].items() if name != "steps"}
        job.health = [without_steps | {"advice": ['preset: "stable"']}]
    (finding,) = client.get(f"/jobs/{job_id}").json["health"]
    assert finding["advice"] == [{"settings": {}, "reason": 'preset: "stable"'}]
    assert "preset: &#34;stable&#34;" in client.get(f"/ui/jobs/{job_id}").text


def test_curves_mark_the_epochs_of_each_finding(
    client: FlaskClient, worker: Any, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    from service.pictures import plots

    figures, render = [], plots._render

    def render_and_keep(figure: Any, fmt: plots.Format) -> bytes:
        figures.append(figure)
        return render(figure, fmt)

    monkeypatch.setattr(plots, "_render", render_and_keep)
    first, second = [mode_collapse(2)], [mode_collapse(5)]
    pictures = set()
    for findings in ([[]] * 6, [[], first, first, [], second, second]):
        job_id = submit(client, kind="gan", name="same")
        worker.claim()
        for epoch, health in enumerate(findings, 1):
            worker.commit_epoch(epoch, health=health)
        pictures.add(client.get(f"/jobs/{job_id}/plots/curves.png").data)
        worker.succeed()
    assert len(pictures) == 2
    unmarked, marked = figures
    *panels, bars = marked.axes
    assert len(panels) == len(unmarked.axes)
    for panel in panels:
        assert [list(line.get_xdata()) for line in panel.lines[-2:]] == [[2, 2], [5, 5]], "vertical lines"
    assert [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in bars.patches] == [(2, 4), (5, 6)]
    assert [text.get_text() for text in bars.texts] == ["mode collapse, epoch 2 to 4", "mode collapse, from epoch 5 on"]


def reject_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


def test_csv_of_a_job_without_epochs_has_only_the_header(client: FlaskClient, submit: Submit) -> None:
    assert client.get(f"/jobs/{submit(client)}/metrics?format=csv").text == "epoch,seconds,cpu_seconds,memory_bytes\n"


def test_the_metrics_of_each_epoch_include_cpu_time_and_memory(
    either_app: Flask, make_worker: Any, submit: Submit
) -> None:
    client, worker = either_app.test_client(), make_worker(either_app)
    job_id = submit(client)
    assert client.get(f"/jobs/{job_id}").json["cpu_seconds"] is None  # as in a job from before CPU time was measured
    worker.claim()
    worker.commit_epoch(1)
    worker.commit_epoch(2, used=Usage(cpu_seconds=1.25, peak_memory_bytes=200_000_000))
    worker.commit_epoch(3, used=Usage(cpu_seconds=2.5, peak_memory_bytes=150_000_000))
    job = client.get(f"/jobs/{job_id}").json
    assert (job["cpu_seconds"], job["peak_memory_bytes"]) == (2.5, 200_000_000)
    assert client.get("/jobs").json["data"][0]["cpu_seconds"] == 2.5
    table = client.get(f"/jobs/{job_id}/metrics").json
    assert table["resources"] == {"cpu_seconds": [None, 0.4, 0.4], "memory_bytes": [None, 200_000_000, 150_000_000]}
    assert set(table["series"]) == {"train_loss", "val_accuracy"}
    lines = client.get(f"/jobs/{job_id}/metrics?format=csv").text.splitlines()
    assert [line.split(",")[-2:] for line in lines] == [
        ["cpu_seconds", "memory_bytes"],
        ["", ""],
        ["0.4", "200000000"],
        ["0.4", "150000000"],
    ]
    metrics_events = [item for item in client.get(f"/jobs/{job_id}/events").json["data"] if item["type"] == "metrics"]
    assert [(item["cpu_seconds"], item["memory_bytes"]) for item in metrics_events][1] == (0.4, 200_000_000)


def test_the_resource_usage_of_a_job_never_decreases(either_app: Flask, make_worker: Any, submit: Submit) -> None:
    client, worker = either_app.test_client(), make_worker(either_app)
    job_id = submit(client)
    claim = worker.claim()

    def used() -> tuple[float, int]:
        job = client.get(f"/jobs/{job_id}").json
        return job["cpu_seconds"], job["peak_memory_bytes"]

    for cpu_seconds, peak in ((2.0, 300), (1.5, 400), (3.0, 100)):  # a supervisor's usage can be older than an epoch's
        renew(worker.database, claim, None, Usage(cpu_seconds=cpu_seconds, peak_memory_bytes=peak))
    assert used() == (3.0, 400)
    leases.record_child_loss(worker.database, claim, "killed", used=Usage(cpu_seconds=3.5, peak_memory_bytes=100))
    assert used() == (3.5, 400)
    assert worker.claim().cpu_seconds == 3.5


def test_the_log_has_the_events_of_each_epoch_and_the_end(client: FlaskClient, worker: Any, submit: Submit) -> None:
    job_id = submit(client)
    worker.claim()
    for epoch in (1, 2):
        worker.commit_epoch(epoch)
    worker.succeed()
    events = client.get(f"/jobs/{job_id}/events").json["data"]
    after = events[-1]["seq"]
    assert [event["type"] for event in events[:5]] == ["status", "status", "metrics", "checkpoint", "sample"]
    assert events[-1]["type"] == "end"
    assert all(event["job"] == job_id and event["at"].endswith("Z") for event in events)
    checkpoint = [event for event in events if event["type"] == "checkpoint"][-1]
    with client.get(checkpoint["url"]) as answer:
        assert answer.headers["ETag"] == f'"{checkpoint["sha256"]}"'
    assert client.get(f"/jobs/{job_id}/events?after={after}").json == {
        "data": [],
        "has_more": False,
        "next_after": after,
    }


def test_the_page_shows_the_resource_usage_of_a_job_and_links_both_films(
    client: FlaskClient, worker: Any, submit: Submit
) -> None:
    job_id = submit(client)
    worker.claim()
    worker.commit_epoch(1, used=Usage(cpu_seconds=2.5, peak_memory_bytes=150_000_000))
    worker.succeed()
    page = one_line(client.get(f"/ui/jobs/{job_id}").text)
    assert "<dt>CPU time</dt><dd>3 s</dd>" in page
    assert "150 MB</dd>" in page
    size = client.get(f"/jobs/{job_id}").json["size_bytes"]
    assert f"{size / 1000:.1f} kB" in page
    assert f"/jobs/{job_id}/samples.webp" in page
    assert f"/jobs/{job_id}/samples.gif" in page
