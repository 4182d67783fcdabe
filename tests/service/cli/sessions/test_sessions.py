"""One session for each group of commands, on the whole service; ``tests/service/cli`` has the details."""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from service.local import LocalStack
from tapeline import ApiError, Client
from tests.service.cli.conftest import TINY, Run
from tests.terminals import run_in_terminal, strip_ansi
from tests.waiting import wait_until

COMMAND = [sys.executable, "-c", "from service.cli import main; main()"]
LONG = {"kind": "gan", "epochs": 1000}
GAN: dict[str, Any] = {
    "kind": "gan",
    "epochs": 1,
    "generator": {"layers": [{"units": 784, "activation": "tanh"}]},
    "discriminator": {"layers": [{"units": 1, "activation": "sigmoid"}]},
}
SWEEP: dict[str, Any] = {
    "name": "session",
    "base": {"kind": "classifier", "epochs": 2, "layers": [{"units": 10, "activation": "softmax"}]},
    "seeds": [0, 1],
    "space": {"/optimizer/learning_rate": {"choice": [0.001, 0.05]}},
    "halving": {"min_epochs": 1, "factor": 2},
}


def test_training_in_a_terminal_in_a_pipe_and_as_json(stack: LocalStack, run: Run, client: Client) -> None:
    existing = {job.id for job in client.jobs()}
    plan = run("train", "-", "--dry-run", "--json", spec=TINY)
    assert json.loads(plan.stdout)["resolved"]["epochs"] == 2
    assert {job.id for job in client.jobs()} == existing, "a dry run creates no job"
    exit_code, output = run_in_terminal(
        *("train", "-", "--watch", "--server", stack.url),
        stdin=json.dumps(TINY).encode(),
        environ={"TERM": "xterm-256color", "COLUMNS": "80"},
    )
    assert exit_code == 0, output
    assert re.search(r"epoch 2/2  val accuracy \d\d\.\d\d%  train loss [\d.]+  succeeded", strip_ansi(output))
    Path("rows.csv").write_text("x,kind\n" + "".join(f"{n % 7},{'ab'[n % 2]}\n" for n in range(40)))
    piped = run("train", "rows.csv", "--name", "session-rows", "--epochs", "1", "--watch")
    assert (piped.exit_code, piped.stdout.splitlines()[-1]) == (0, "succeeded"), piped.output
    events = [json.loads(line) for line in run("watch", "session-rows", "--json").stdout.splitlines()]
    numbers = [event["seq"] for event in events if event["seq"] is not None]
    assert numbers == list(range(1, len(numbers) + 1))
    diverging = TINY | {"optimizer": {"name": "sgd", "learning_rate": 10}, "loss": "squared_error"}
    diverging |= {"layers": [{"units": 10, "activation": "linear"}], "schedule": "constant"}
    failed = run("train", "-", "--watch", spec=diverging | {"loss": {"name": "squared_error", "reduction": "sum"}})
    assert re.fullmatch(r"tapeline: job job_\w+ failed: .*finite.*learning rate.*\n", failed.stderr), failed.output
    refused = run("train", "-", spec=TINY | {"optimiser": {}})
    assert "unknown field; did you mean 'optimizer'?" in refused.stderr


def test_jobs_are_listed_controlled_continued_downloaded_and_asked(run: Run, client: Client, tmp_path: Path) -> None:
    job_id = run("train", "-", spec=TINY | {"name": "session-job"}).stdout.strip()
    assert run("watch", job_id[-8:].lower()).exit_code == 0
    assert run("jobs", "-q", "session-job").stdout.splitlines()[1].startswith(f"{job_id}\tclassifier\tsucceeded\t2/2\t")
    forked = run("fork", "session-job", "--checkpoint", "1", "--set", "optimizer.learning_rate=0.01")
    fork = client.job(forked.stdout.strip()).wait(timeout_s=120)
    assert (fork.status, fork.parent_id, fork["start_epoch"]) == ("succeeded", job_id, 1)
    assert run("reproduce", job_id, "--watch").stdout.endswith(f"bit-identical to {job_id}\n")
    assert run("download", job_id).exit_code == 0
    assert "layers.0.weight" in load_file(Path(job_id) / "checkpoint-0002.safetensors")
    with Image.open(Path(job_id) / "curves.png") as picture:
        picture.load()
    digit = client.download("/datasets/mnist-10k/validation/0.png", tmp_path / "digit.png")
    with Image.open(digit) as image:
        image.resize((300, 300)).convert("RGB").save("digit.jpg")
    answers = [line.split("\t") for line in run("predict", job_id, "digit.png", "digit.jpg").stdout.splitlines()]
    assert [name for name, *_ in answers] == ["digit.png", "digit.jpg"]
    assert answers[0][1] == answers[1][1], "of a photo, the same class"
    painter = client.submit(GAN).wait(timeout_s=120)
    assert run("generate", painter.id, "--film", "--count", "2", "-o", "film.gif").exit_code == 0
    with Image.open("film.gif") as film:
        assert getattr(film, "n_frames", 1) > 12
    long_id = run("train", "-", spec=LONG).stdout.strip()
    process = subprocess.Popen(
        [*COMMAND, "--server", client.server, "watch", long_id],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    while process.stdout.readline() != "running\n":
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, message = process.communicate(timeout=30)
    assert (process.returncode, message) == (130, f"job {long_id} continues; stop it with: tapeline cancel {long_id}\n")
    assert run("pause", long_id).exit_code == 0
    wait_until(lambda: client.job(long_id).status == "paused", "the job to pause")
    assert run("resume", long_id).exit_code == 0
    assert run("cancel", long_id).exit_code == 0
    assert client.job(long_id).wait(timeout_s=120).status == "cancelled"
    in_terminal = functools.partial(run_in_terminal, environ={"COLUMNS": "80"})
    refused = run("delete", long_id[-8:])
    assert (refused.exit_code, f"the job {long_id}" in refused.stderr) == (2, True)
    for answer, exit_code in ((b"n\n", 1), (b"y\n", 0)):
        code, output = in_terminal("--server", client.server, "delete", long_id, typed=answer)
        assert (code, f"Delete the job {long_id} with all its files?" in strip_ansi(output)) == (exit_code, True), (
            output
        )
    namesakes = [run("train", "-", spec=LONG | {"name": "twice"}).stdout.strip() for _ in range(2)]
    for job_id in namesakes:
        client.job(job_id).cancel()
        client.job(job_id).wait(timeout_s=120)
    assert "2 jobs are named 'twice'" in run("delete", "twice").stderr
    assert json.loads(run("delete", namesakes[0], "--json").stdout) == {"id": namesakes[0], "deleted": True}
    assert in_terminal("--server", client.server, "delete", "twice", "--yes", typed=b"\n")[0] == 0
    with pytest.raises(ApiError):
        client.job(long_id)


def test_results_are_shown_compared_and_completed(stack: LocalStack, run: Run, client: Client) -> None:
    plain = client.submit(TINY | {"name": "shown"}).wait(timeout_s=120)
    other = client.submit(TINY | {"name": "shown otherwise", "seed": 1}).wait(timeout_s=120)
    shown = run("show", "shown").stdout
    assert f"Job\t{plain.id}\n" in shown
    assert f"{plain.metrics['val_accuracy']:.2%}" in shown
    history = plain.history().series["val_loss"]
    assert json.loads(run("metrics", "shown", "--metric", "val_loss", "--json").stdout)["series"]["val_loss"] == history
    compared = json.loads(run("compare", "shown", "shown otherwise", "--json").stdout)
    assert [job["id"] for job in compared["jobs"]] == [plain.id, other.id]
    assert run("open", "shown").stdout == f"{plain.page}\n"
    assert httpx.get(plain.page, headers={"Accept": "text/html"}).status_code == 200
    assert completions(stack, "tapeline re", 1) == ["reproduce", "residuals", "resume", "retry", "restore"]
    assert set(completions(stack, "tapeline show show", 2)) == {"shown", "shown otherwise"}
    assert "--checkpoint" in completions(stack, "tapeline fork --ch", 2)
    assert completions(stack, "tapeline train --dataset mnist-", 3) == ["mnist-10k"]
    assert completions(stack, "tapeline train --kind gan --preset s", 5) == ["stable"]
    assert completions(stack, "tapeline train --set optimizer.lea", 3) == ["optimizer.learning_rate="]


def completions(stack: LocalStack, words: str, number: int) -> list[str]:
    """The completions that bash would offer for the last word."""
    environ = os.environ | {"_TAPELINE_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(number)}
    environ["TAPELINE_PORT"] = stack.url.rpartition(":")[2]
    command = [sys.executable, "-c", "import sys; sys.argv = ['tapeline']; from service.cli import main; main()"]
    result = subprocess.run(command, env=environ, capture_output=True, text=True, check=True, timeout=60)
    return [line.partition(",")[2] for line in result.stdout.splitlines()]


def test_datasets_are_uploaded_trained_on_asked_and_deleted(run: Run, client: Client) -> None:
    for name, level in (("day", 220), ("night", 30)):
        Path("photos", name).mkdir(parents=True)
        for index in range(20):
            image = Image.new("RGB", (320, 240) if index % 2 else (240, 320), (level, level - index, level))
            image.save(Path("photos", name, f"{index}.jpg"))
    uploaded = run("upload", "photos", "--name", "session-sky", "--size", "16x12")
    assert uploaded.exit_code == 0, uploaded.output
    assert "session-sky\t" in run("datasets").stdout
    spec = {"kind": "classifier", "name": "session-sky", "dataset": "session-sky", "epochs": 3, "batch_size": 4}
    trained = run("train", "-", "--watch", spec=spec)
    assert (trained.exit_code, trained.stdout.splitlines()[-1]) == (0, "succeeded"), trained.output
    Image.new("L", (16, 12), 25).save("dark.png")
    assert "\tnight\t" in run("predict", "session-sky", "dark.png").stdout
    by_folder = run("predict", "session-sky", "photos").stdout.splitlines()
    assert len(by_folder) == 40
    assert by_folder[0].startswith("photos/day/0.jpg\tday\t")
    arguments = ["--server", client.server, "predict", "session-sky", "photos"]
    with subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()  # as `head` does when it has enough
        assert process.stderr is not None
        assert process.stderr.read() == ""
    rows = "".join(f"{number},{'ab'[number % 2]}\n" for number in range(40))
    Path("rare.csv").write_text(f"n,label\n{rows}7,selten\n")
    assert run("upload", "rare.csv", "--name", "session-rare").exit_code == 0
    table = client.submit({"kind": "classifier", "dataset": "session-rare", "epochs": 1}).wait(timeout_s=120)
    page = httpx.get(table.page, headers={"Accept": "text/html"}).text
    assert "No score covers selten: the validation data has no rows of this class." in page
    Path("more.csv").write_text("n\n1\n2\n")
    assert run("predict", table.id, "more.csv", "-o", "out.csv").exit_code == 0
    assert len(Path("out.csv").read_text().splitlines()) == 3
    running = client.submit({"kind": "classifier", "dataset": "session-sky", "epochs": 5000})
    refused = run("datasets", "delete", "session-sky")
    assert (refused.exit_code, running.id in refused.stderr) == (1, True), refused.output
    running.cancel().wait(timeout_s=120)
    assert run("datasets", "delete", "session-sky").exit_code == 0
    assert "session-sky" not in run("datasets").stdout
    assert run("predict", "session-sky", "photos").stdout.splitlines() == by_folder, "the model outlives its dataset"
    assert run("export", "session-sky", "--to", "onnx", "-o", "sky.onnx").exit_code == 0
    assert run("show", "session-sky").exit_code == 0


def test_a_job_is_exported_to_every_format(run: Run, client: Client) -> None:
    job = client.submit(TINY | {"name": "session-export"}).wait(timeout_s=120)
    for target in ("onnx", "torch", "tensorboard", "huggingface"):
        result = run("export", job.id, "--to", target, "--json")
        assert result.exit_code == 0, result.output
        path = Path(json.loads(result.output)["path"])
        assert zipfile.is_zipfile(path) == (target != "onnx")


@pytest.mark.stack
def test_a_sweep_is_watched_shown_compared_paused_and_deleted(run: Run, client: Client) -> None:
    Path("sweep.json").write_text(json.dumps(SWEEP))
    existing = {sweep.id for sweep in client.sweeps()}
    assert "2 (grid), 4 jobs" in run("sweep", "sweep.json", "--dry-run").stdout
    assert {sweep.id for sweep in client.sweeps()} == existing, "a dry run starts no sweep"
    watched = run("sweep", "sweep.json", "--watch")
    assert watched.exit_code == 0, watched.output
    lines = watched.stdout.splitlines()
    assert any(line.startswith("winner: trial 1 with ") for line in lines)
    assert lines[-1].startswith("succeeded: 6 epochs trained, 6 planned, digest sha256:")
    assert "1 stopped, 1 succeeded" in run("sweeps", "session").stdout
    assert run("sweeps", "session", "--plot", "session.png").exit_code == 0
    with Image.open("session.png") as picture:
        assert np.asarray(picture).std() > 0
    assert (
        "The mean of session trial 1 is "
        in run("compare", "session:0", "session", "--metric", "val_accuracy", "--best").stdout
    )
    sweep = client.sweep(SWEEP | {"name": "session-long", "base": SWEEP["base"] | {"epochs": 200}})
    assert run("sweeps", "session-long", "--do", "pause").exit_code == 0
    assert sweep.resume().status == "running"
    assert sweep.cancel().status == "cancelled"
    for job in client.jobs(q="session-long"):
        job.wait(timeout_s=120)
    assert run("sweeps", sweep.id, "--do", "delete").exit_code == 0
    with pytest.raises(ApiError, match="no sweep"):
        sweep.refresh()


def test_ctrl_c_during_the_demo_cancels_its_jobs(stack: LocalStack, client: Client, tmp_path: Path) -> None:
    environ = os.environ | {"TAPELINE_HOME": str(stack.settings.home)}  # the demo uses the running stack
    # At the demo's own length, the classifier may succeed before a busy machine cancels it.
    lengthen = "demo.SPECS = tuple(spec | {'epochs': 1000} for spec in demo.SPECS)"
    program = f"from service.cli import main; from service.cli.commands import demo; {lengthen}; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "demo"], cwd=tmp_path, env=environ, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == f"Using the running service at {stack.url}.\n"
    for line in process.stdout:
        if "epoch" in line:
            break
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Interrupted." in output
    assert re.search(r"classifier \(job_\w+\): cancelled after \d+ of 1000 epochs", output)
    assert re.search(r"gan \(job_\w+\): cancelled after \d+ of 1000 epochs", output)
    assert [job["status"] for job in client.list(tag="demo", limit=2)] == ["cancelled", "cancelled"]
    assert list(tmp_path.iterdir()) == []
