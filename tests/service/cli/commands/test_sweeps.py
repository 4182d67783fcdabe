"""The commands for sweeps, and the client's methods."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from service.cli import main
from tapeline import ApiError, Client
from tests.tapeline.stub.scenes import Recordings
from tests.terminals import run_in_terminal, strip_ansi

Run = Callable[..., Result]

SWEEP: dict[str, Any] = {
    "name": "rates",
    "base": {"kind": "classifier", "epochs": 2, "layers": [{"units": 10, "activation": "softmax"}]},
    "seeds": [0, 1],
    "space": {"/optimizer/learning_rate": {"choice": [0.001, 0.05]}},
    "halving": {"min_epochs": 1, "factor": 2},
}
HIGHEST_LOSS = {"metric": "train_loss", "goal": "maximize"}


@pytest.fixture(scope="session")
def watched(recordings: Recordings, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """The output of watching a sweep until its end."""
    path = tmp_path_factory.mktemp("spec") / "sweep.json"
    path.write_text(json.dumps(SWEEP))
    with recordings.scene("sweeps", "watched") as url:
        return CliRunner().invoke(main, ["sweep", str(path), "--watch", "--server", url])


def test_a_watched_sweep_prints_one_line_per_result(watched: Result) -> None:
    assert watched.exit_code == 0, watched.output
    lines = watched.stdout.splitlines()
    assert lines[0].startswith("swp_")
    assert [line.split()[1] for line in lines if "val accuracy" in line] == ["0", "1", "1"]
    assert "epoch   1  promoted: 1" in lines
    assert any(
        line.startswith("winner: trial 1 with ") and line.endswith("  optimizer.learning_rate 0.05") for line in lines
    )
    assert lines[-2] == "Trial 1 (learning_rate 0.05) is the only one trained to epoch 2."
    assert lines[-1].startswith("succeeded: 6 epochs trained, 6 planned, digest sha256:")


def test_a_stopped_trial_is_listed_and_shown_as_such(run: Run, watched: Result) -> None:
    _, *listed = run("jobs", "--status", "stopped", "-q", "rates 0").stdout.splitlines()
    lines = [line.split("\t") for line in listed]
    assert {line[2] for line in lines} == {"cancelled, stopped by sweep"}
    assert run("jobs", "--status", "cancelled", "-q", "rates 0").stdout == ""
    output = run("show", lines[0][0]).stdout
    assert "Status\tstopped by sweep, epoch 1/2" in output
    assert run("watch", lines[0][0]).stdout.splitlines()[-1].endswith("stopped by sweep")
    winner = run("jobs", "--status", "succeeded", "-q", "rates 1").stdout.splitlines()[1].split("\t")[0]
    [status] = [line for line in run("compare", lines[0][0], winner).stdout.splitlines() if line.startswith("status")]
    assert status.split("\t")[1:] == ["stopped by sweep", "succeeded"]


@pytest.mark.stack
def test_a_list_of_jobs_in_a_terminal_has_one_line_for_a_sweep(watched: Result, run: Run, server_url: str) -> None:
    def listed(*arguments: str) -> list[str]:
        command = ("--server", server_url, "jobs", "--limit", "100", *arguments)
        output = strip_ansi(run_in_terminal(*command, environ={"COLUMNS": "140", "TERM": "xterm"})[1])
        return [line for line in output.splitlines() if "rates" in line]

    [line] = listed()
    assert watched.stdout.split()[0] == line.split()[0]
    assert re.search(r"rates, 2 trials +succeeded +2/2 +val accuracy \d\d\.\d\d%", line)
    assert [len(listed("--all")), len(listed("--kind", "classifier")), len(listed("--sort", "name"))] == [4, 4, 4]
    assert len([line for line in run("jobs", "--limit", "100").stdout.splitlines() if "rates" in line]) == 4, (
        "in a pipe"
    )


@pytest.mark.stack
def test_trials_are_grouped_by_how_long_they_were_trained(watched: Result, run: Run, server_url: str) -> None:
    sentence = "Trial 1 (learning_rate 0.05) is the only one trained to epoch 2."
    assert f"Best\t{sentence}" in run("sweeps", "rates").stdout
    environ = {"COLUMNS": "80", "TERM": "xterm"}
    output = strip_ansi(run_in_terminal("--server", server_url, "sweeps", "rates", environ=environ)[1])
    assert sentence in output
    lines = [line.split()[:3] for line in output.partition("TRIAL")[2].splitlines()[1:4]]
    assert lines == [["1", "succeeded", "2"], [], ["0", "stopped", "1"]]
    by_trial = run_in_terminal("--server", server_url, "sweeps", "rates", "--sort", "trial", environ=environ)[1]
    lines = [line.split()[:1] for line in strip_ansi(by_trial).partition("TRIAL")[2].splitlines()[1:3]]
    assert lines == [["0"], ["1"]]


def test_an_interval_of_zero_width_gets_a_note(run: Run, client: Client, watched: Result, tmp_path: Path) -> None:
    table = tmp_path / "easy.csv"
    table.write_text("x,kind\n" + "".join(f"{n % 2},{'ab'[n % 2]}\n" for n in range(200)))
    client.upload("easy", table)
    base = {"kind": "classifier", "dataset": "easy", "epochs": 20}
    space = {"/batch_size": {"choice": [8, 10]}}
    sweep = client.sweep({"name": "equal", "base": base, "seeds": [0, 1], "space": space}).wait(timeout_s=120)
    result = run("sweeps", sweep.id)
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert [len(set(line[4].split(" to "))) for line in lines[-2:]] == [1, 1]
    assert result.stderr.startswith("note: all seeds of trials 0 and 1 have the same value, which can be chance"), (
        result
    )
    wide = client.sweep(SWEEP | {"name": "wide", "objective": HIGHEST_LOSS}).wait(timeout_s=120)
    assert run("sweeps", wide.id).stderr == "", "losses differ from seed to seed"


def test_trials_can_be_compared_by_the_name_of_their_sweep(run: Run, watched: Result) -> None:
    output = run("compare", "rates:0", "rates", "--metric", "val_accuracy", "--best").stdout
    assert "rates trial 1 is " in output
    assert " rates trial 0 " in output
    assert run("compare", "rates:0", "no such", "--metric", "val_accuracy").exit_code != 0
    assert (
        run("compare", "rates:0", "rates:1").stdout
        == run("compare", "rates:0", "rates", "--metric", "val_accuracy").stdout
    )
    joined = run("compare", "rates 0 (seed 0),", "rates 1 (seed 0)")
    assert (joined.exit_code, "with one seed each" in joined.stdout) == (0, True), "jobs that are joined need no metric"
    assert "has no trial '9'" in run("compare", "rates:9", "rates").stderr
    why = run("why", "rates:0", "rates:1", "--no-replay")
    assert "spec optimizer.learning_rate\t0.001 and 0.05" in why.stdout
    assert "rates:0: the job rates 0 (seed 0)" in why.stderr


def test_the_best_trial_so_far_is_chosen_by_the_rule_for_the_winner(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "sweep.json"
    # The loss falls from epoch to epoch, so a stopped trial has the highest one.
    path.write_text(json.dumps(SWEEP | {"name": "highest", "seeds": [0], "objective": HIGHEST_LOSS}))
    lines = run("sweep", str(path), "--watch").stdout.splitlines()
    rows = [line.split() for line in lines if " best " in line or line.startswith("winner: ")]
    best = [float(words[words.index("best") + 1]) for words in rows if "best" in words]
    (winner,) = (float(words[4]) for words in rows if words[0] == "winner:")
    assert best[-2] > best[-1] == winner


def test_sweeps_are_listed_and_shown(watched: Result, run: Run) -> None:
    listed = run("sweeps")
    assert listed.exit_code == 0, listed.output
    assert listed.stdout.splitlines()[0] == "ID\tNAME\tSTATUS\tTRIALS\tBEST"
    assert "rates" in listed.stdout
    shown = run("sweeps", "rates")
    assert "1 stopped, 1 succeeded" in shown.stdout
    assert "/optimizer" not in shown.stdout
    lines = [line.split("\t") for line in shown.stdout.splitlines()]
    assert lines[-3] == ["TRIAL", "STATUS", "EPOCH", "val accuracy", "95% CI OVER SEEDS", "optimizer.learning_rate"]
    assert [line[:3] + line[5:] for line in lines[-2:]] == [
        ["1", "succeeded", "2", "0.05"],
        ["0", "stopped", "1", "0.001"],
    ]
    assert " to " in lines[-1][4]
    [line] = [line.split("\t") for line in listed.stdout.splitlines() if "\trates\t" in line]
    assert line[1:4] == ["rates", "succeeded", "2/2"]
    document = json.loads(run("sweeps", "rates", "--json").stdout)
    assert [row["status"] for row in document["trial_rows"]] == ["succeeded", "stopped"]


def test_the_curves_of_a_sweep_are_plotted_to_a_file(watched: Result, run: Run, tmp_path: Path) -> None:
    result = run("sweeps", "rates", "--plot", str(tmp_path / "rates.png"), "--band", "interval", "--metric", "val_loss")
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "rates.png") as picture:
        assert picture.width > picture.height > 300
    refused = run("sweeps", "rates", "--plot", str(tmp_path / "rates.jpg"))
    assert "ends with .png or .svg" in refused.stderr


def test_trials_are_flat_rows_for_a_table(watched: Result, server_url: str) -> None:
    with Client(server_url) as client:
        sweep = client.find_sweep("rates")
        first, second = sweep.trials()
        assert (first["trial"], first["optimizer.learning_rate"], first["status"]) == (0, 0.001, "stopped")
        assert second["val_accuracy"] == pytest.approx(
            (second["val_accuracy (seed 0)"] + second["val_accuracy (seed 1)"]) / 2
        )
        assert sweep.best == second
        assert (first["last_epoch"], second["last_epoch"], second["error"]) == (1, 2, None)
        assert (first["rung_epoch"], second["rung_epoch"]) == (1, 2)
        low, high = (second[f"val_accuracy ({end})"] for end in ("interval_low", "interval_high"))
        assert low <= second["val_accuracy"] <= high
        assert [item["type"] for item in sweep.decisions()][-1] == "winner"
        assert [item["setting"] for item in sweep.importance()] == ["optimizer.learning_rate"]
        assert (sweep.trial(1)["trial"], sweep.trial(1)["settings"]) == (1, {"optimizer.learning_rate": 0.05})
        assert [event.type for event in sweep.events()][-1] == "end"
        comparison = client.compare(f"{sweep.id}:0", f"{sweep.id}:1", metric="train_loss")
        assert (comparison["n"], comparison["paired"]) == (2, True)
        assert client.compare("rates:0", sweep, metric="train_loss") == comparison
        assert client.compare(sweep.trial(0), sweep.best, metric="train_loss") == comparison
        assert repr(comparison) == f"<Comparison: {comparison.sentence}>"
        assert "rates trial 1" in comparison._repr_html_()
        low, high = comparison.interval
        assert low <= comparison.difference <= high
        with pytest.raises(TypeError, match=r"0 is no job, sweep, trial or name; a trial is sweep.trial\(3\)"):
            client.compare(sweep, 0)
        assert sweep.best_sentence == sweep["best_sentence"]
        assert client.compare(sweep, sweep)["difference"] == 0
        [rate] = client.why("rates:0", sweep)["spec"]
        assert (rate["name"], rate["a"], rate["b"]) == ("/optimizer/learning_rate", 0.001, 0.05)


def test_a_sweep_is_found_by_its_name_or_the_end_of_its_id(watched: Result, server_url: str) -> None:
    with Client(server_url) as client:
        sweep_id = client.find_sweep("rates").id
        assert client.find_sweep(sweep_id[-6:].lower()).id == sweep_id
        for text in ("", "5", "rate"):
            with pytest.raises(ApiError, match=r"no sweep|not an id"):
                client.find_sweep(text)


def test_the_importance_of_settings_follows_the_trials(watched: Result, run: Run, client: Client) -> None:
    space = {"optimizer.learning_rate": [0.0001, 0.05], "batch_size": [50, 100]}
    options = {"space": space, "seeds": 2, "epochs": 1, "name": "important"}
    assert client.sweep_dry_run(dataset="iris", **options)["jobs"] == 8
    client.sweep(dataset="iris", **options).wait(timeout_s=120)
    lines = [line.split("\t") for line in run("sweeps", "important").stdout.splitlines()]
    assert lines[-4] == ["SETTING", "IMPORTANCE", "BEST VALUES"]
    assert {line[0] for line in lines[-3:-1]} == set(space)
    assert "With few trials they are a rough guide" in lines[-1][0]
    for command in ("show", "importance"):
        assert "important is a sweep: tapeline sweeps important" in run(command, "important").stderr
    with pytest.raises(TypeError, match="batch_size is '50,100'; give a list such as"):
        client.sweep(dataset="iris", space={"batch_size": "50,100"})


def test_trials_can_be_compared_by_the_id_of_their_sweep(watched: Result, server_url: str, run: Run) -> None:
    with Client(server_url) as client:
        sweep_id = client.find_sweep("rates").id
    result = run("compare", f"{sweep_id}:0", sweep_id, "--metric", "val_accuracy")
    assert result.exit_code == 0, result.output
    assert "2 pairs" in result.stdout


def test_a_dry_run_reports_the_plan_and_a_refused_sweep_its_faults(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "sweep.json"
    path.write_text(json.dumps(SWEEP))
    plan = run("sweep", str(path), "--dry-run")
    assert "2 (grid), 4 jobs" in plan.stdout
    assert "Epochs\tat most 6; without halving 8\n" in plan.stdout
    assert "Rungs\t1, 2\n" in plan.stdout
    without_halving = {name: value for name, value in SWEEP.items() if name != "halving"}
    for budget, epochs in (({}, "at most 8"), ({"budget": {"epochs": 6}}, "at most 6; without budget 8")):
        path.write_text(json.dumps(without_halving | budget))
        plan = run("sweep", str(path), "--dry-run")
        assert f"Epochs\t{epochs}\n" in plan.stdout, plan.output
        assert "Rungs" not in plan.stdout
    path.write_text(json.dumps(SWEEP | {"space": {"/optimizer/learning_rte": {"choice": [1]}}}))
    refused = run("sweep", str(path))
    assert refused.exit_code != 0
    message = "optimizer.learning_rte: does not exist in the spec; did you mean 'optimizer.learning_rate'?"
    assert message in refused.output
    assert "#/space" not in refused.output


def test_a_sweep_is_started_from_settings_to_try(run: Run, client: Client) -> None:
    tries = ("--try", "optimizer.learning_rate=0.001..0.3", "--try", "batch_size=50,100", "--seeds", "5")
    plan = run("sweep", "--dataset", "iris", *tries, "--dry-run")
    assert "Trials\t16 (random), 80 jobs\n" in plan.stdout, plan.output
    assert "optimizer.learning_rate\t0.001 to 0.3, log\nbatch_size\t50, 100\nSeeds\t0, 1, 2, 3, 4\n" in plan.stdout
    grid = run("sweep", "--dataset", "iris", "--try", "batch_size=50,100", "--set", "seed=4", "--epochs", "1")
    sweep = client.find_sweep(grid.stdout.strip())
    assert (sweep["name"], sweep["resolved"]["search"]["name"], sweep["trials"]["total"]) == ("iris", "grid", 2)
    assert sweep["spec"]["base"] == {"kind": "classifier", "dataset": {"name": "iris"}, "epochs": 1, "seed": 4}
    drawn = run("sweep", "--dataset", "iris", "--try", "batch_size=50,100,200", "--trials", "2", "--dry-run", "--json")
    assert json.loads(drawn.stdout)["resolved"]["search"] == {"name": "random", "trials": 2, "seed": 0}
    faulty = run("sweep", "--dataset", "irsi", "--try", "lr=0.1..0.2")
    assert "#/base/dataset/name: unknown dataset" in faulty.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to train on: give --dataset NAME, or a SPEC"),
        (("--dataset", "iris"), "nothing to try: add --try FIELD=A,B,C or --seeds N"),
        (("-", "--try", "batch_size=1,2"), "--try and SPEC are both given: write it to the file"),
        (("--dataset", "iris", "--seeds", "2", "--trials", "3"), "--trials draws settings: add --try"),
    ],
)
def test_incomplete_options_of_a_sweep_are_refused(run: Run, arguments: tuple[str, ...], message: str) -> None:
    refused = run("sweep", *arguments, spec="{}")
    assert (refused.exit_code, message in " ".join(refused.stderr.split())) == (2, True), refused.output


def test_the_command_line_reports_why_a_trial_failed(server_url: str, run: Run, watched: Result) -> None:
    layers = [{"units": 4, "activation": "relu"}, {"units": 10, "activation": "softmax"}]
    space = {"/layers/1/units": {"choice": [11, 10]}}  # there are ten classes
    base = {"kind": "classifier", "epochs": 500, "layers": layers}
    with Client(server_url) as client:
        sweep = client.sweep({"name": "failing", "base": base, "space": space, "max_failed": 1})
        sweep.pause()
        assert "Trials\t2: 1 paused, 1 failed" in run("sweeps", "failing").stdout
        sweep.resume()
        client.job(sweep.trials()[1]["job (seed 0)"]).cancel()
        result = run("sweeps", "failing", "--watch")
        [invalid, cancelled] = sweep.trials()
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[1].startswith("trial   0  failed: ")
    assert lines[3:] == [
        "paused",
        "resumed",
        "trial   1  failed: the job was cancelled",
        "no more trials start: too many have failed",
        lines[-1],
    ]
    assert "11" in invalid["error"]
    assert cancelled["error"] == "the job was cancelled"
    rows = [line.split("\t") for line in run("sweeps", "failing").stdout.splitlines()]
    assert rows[-3][-1] == "ERROR"
    assert "the job was cancelled" in {line[-1] for line in rows[-2:]}


def test_a_sweep_is_paused_resumed_cancelled_and_deleted(watched: Result, server_url: str, run: Run) -> None:
    with Client(server_url) as client:
        sweep = client.sweep(SWEEP | {"name": "other", "base": SWEEP["base"] | {"epochs": 200}})
        assert run("sweeps", "other", "--do", "pause", "--json").exit_code == 0
        assert sweep.refresh().status == "paused"
        assert sweep.resume().status == "running"
        assert sweep.cancel().status == "cancelled"
        for job in client.jobs(q="other"):
            job.wait(timeout_s=120)
        assert run("sweeps", sweep.id, "--do", "delete").exit_code == 0
        with pytest.raises(ApiError, match="no sweep"):
            sweep.refresh()
