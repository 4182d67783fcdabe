from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.numpy import load_file

from service.cli import main
from service.cli.commands import demo as demo_command
from service.cli.progress import sparkline
from service.client import Client
from service.local import LocalStack
from tests.terminals import in_terminal, plain

Run = Callable[..., Result]

TINY = {
    "kind": "classifier",
    "epochs": 2,
    "layers": [{"units": 10, "activation": "softmax"}],
    "checkpoint": {"keep_last": 2},
}
LONG = {"kind": "gan", "epochs": 1000}
DIVERGING = TINY | {
    "layers": [{"units": 10, "activation": "linear"}],
    "loss": {"name": "squared_error", "reduction": "sum"},
    "optimizer": {"name": "sgd", "learning_rate": 10},
    "schedule": {"name": "constant"},
}


@pytest.fixture
def trained(run: Run) -> str:
    result = run("train", "-", "--json", spec=TINY)
    job_id: str = json.loads(result.stdout)["id"]
    assert run("watch", job_id).exit_code == 0
    return job_id


def test_a_job_that_was_renamed_after_its_end_can_be_watched(run: Run, client: Client, trained: str) -> None:
    client.change(trained, name="kept")
    result = run("watch", trained, "--json")
    assert result.exit_code == 0, result.output
    assert [json.loads(line)["type"] for line in result.stdout.splitlines()].count("end") == 1


def test_a_pipe_gets_a_plain_line_for_each_epoch(run: Run) -> None:
    result = run("train", "-", "--watch", spec=TINY)
    assert result.exit_code == 0
    assert "\x1b" not in result.output
    assert "\r" not in result.output
    head, *lines = result.stdout.splitlines()
    assert re.fullmatch(r"job_\w+  http://127\.0\.0\.1:\d+/ui/jobs/job_\w+", head)
    assert lines[-1] == "succeeded"
    epochs = [line for line in lines if line.startswith("epoch")]
    assert len(epochs) == 2
    number = r"\d+(\.\d+)?"
    values = rf"val accuracy \d\d\.\d\d%  train loss {number}  val loss {number}"
    assert re.fullmatch(rf"epoch 1/2  {values}", epochs[0]), "which data each value is of"


def test_a_gan_shows_both_losses(run: Run) -> None:
    gan = {
        "kind": "gan",
        "epochs": 1,
        "generator": {"layers": [{"units": 784, "activation": "tanh"}]},
        "discriminator": {"layers": [{"units": 1, "activation": "sigmoid"}]},
    }
    result = run("train", "-", "--watch", spec=gan)
    losses = r"^epoch 1/1  generator loss \d+\.\d+  discriminator loss \d+\.\d+"
    assert re.search(losses, result.stdout, re.MULTILINE)


def test_json_is_for_machines(run: Run) -> None:
    result = run("train", "-", "--watch", "--json", spec=TINY)
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert events[0]["type"] == "snapshot"
    assert events[-1]["type"] == "end"
    assert events[-1]["data"]["status"] == "succeeded"
    numbered = [event["seq"] for event in events if event["seq"] is not None]
    assert numbered == list(range(1, len(numbered) + 1))


def test_the_id_is_all_that_train_prints(run: Run) -> None:
    assert re.fullmatch(r"job_\w+\n", run("train", "-", spec=TINY).stdout)


def test_the_same_key_makes_one_job(run: Run) -> None:
    first = run("train", "-", "--idempotency-key", "k1", spec=TINY)
    assert run("train", "-", "--idempotency-key", "k1", spec=TINY).stdout == first.stdout


def test_a_dry_run_says_what_it_would_cost_and_makes_no_job(run: Run, client: Client) -> None:
    before = len(list(client.list()))
    result = run("train", "-", "--dry-run", "--json", spec={"kind": "gan"})
    assert json.loads(result.stdout)["parameters"] > 100_000
    rows = dict(
        line.split("\t")
        for line in run(
            "train", "-", "--dry-run", spec={name: value for name, value in TINY.items() if name != "checkpoint"}
        ).stdout.splitlines()[:6]
    )
    assert list(rows) == ["Job", "Parameters", "Steps", "Memory", "Checkpoint size", "Estimated time"]
    assert (rows["Job"], rows["Parameters"]) == ("classifier, preset fast, dataset mnist-10k", "7,850")
    assert rows["Checkpoint size"].endswith(" kB")
    changed = [
        line
        for line in run(
            "train", "-", "--dry-run", spec={name: value for name, value in TINY.items() if name != "checkpoint"}
        ).stdout.splitlines()
        if "Settings" in line
    ]
    assert changed[0] == "Settings\tepochs: 2 (preset: 3)"
    assert changed[1].startswith("Settings\tlayers: dense 10 softmax (preset: dense 392 relu - ")
    assert len(list(client.list())) == before


def test_each_fault_of_a_spec_has_its_line(run: Run) -> None:
    result = run("train", "-", spec={"kind": "classifier", "epochs": 0, "optimiser": {}})
    assert result.exit_code == 1
    assert result.stdout == ""
    first, *faults = result.stderr.splitlines()
    assert first.startswith("tapeline: ")
    assert len(faults) == 2
    assert faults[0].startswith("  #/epochs: ")
    assert faults[1].startswith("  #/optimiser: unknown field; did you mean 'optimizer'?")


def test_a_fault_is_a_problem_document_for_machines(run: Run) -> None:
    result = run("train", "-", "--json", spec={"kind": "classifier", "epochs": 0})
    assert result.exit_code == 1
    problem = json.loads(result.stderr)["error"]
    assert problem["code"] == "invalid_spec"
    assert [fault["pointer"] for fault in problem["errors"]] == ["#/epochs"]


def test_malformed_json_is_shown_with_its_place(run: Run) -> None:
    result = run("train", "-", spec='{"kind": "gan",\n "epochs": NaN}')
    assert result.exit_code == 1
    assert "line 2, column 12" in result.stderr


def test_a_spec_that_is_not_there_is_a_usage_error(run: Run) -> None:
    result = run("train", "missing.json")
    assert result.exit_code == 2
    assert "missing.json" in result.stderr


def test_an_unknown_job_is_one_line(run: Run) -> None:
    result = run("watch", "job_01ABC")
    assert result.exit_code == 1
    assert re.fullmatch(r"tapeline: .*job_01ABC.*\n", result.stderr)


def test_a_failed_job_ends_with_why_and_what_to_try(run: Run) -> None:
    result = run("train", "-", "--watch", spec=DIVERGING)
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == "failed"
    assert re.fullmatch(r"tapeline: job job_\w+ failed: .*finite.*learning rate.*\n", result.stderr)


def test_jobs_are_columns_in_a_pipe(run: Run, trained: str) -> None:
    rows = [line.split("\t") for line in run("jobs", "--kind", "classifier").stdout.splitlines()]
    row = next(row for row in rows if row[0] == trained)
    assert row[1:4] == ["classifier", "succeeded", "2/2"]
    assert json.loads(run("jobs", "--json", "-q", trained).stdout)[0]["id"] == trained
    assert run("jobs", "-q", "nothing like it").stdout == ""
    listed = [run("jobs", "--sort", sort).stdout.splitlines() for sort in ("created_at", "-created_at")]
    assert listed[0] == listed[1][::-1]


def test_a_name_or_a_part_of_an_id_does_as_well(run: Run) -> None:
    names = ("falcon", "kestrel one", "kestrel two")
    ids = [run("train", "-", spec=TINY | {"name": name}).stdout.strip() for name in names]
    assert run("watch", "falcon").exit_code == 0
    assert run("watch", ids[1][-8:].lower()).exit_code == 0
    ambiguous = run("watch", "kestrel")
    assert ambiguous.exit_code == 1
    head, *candidates = ambiguous.stderr.splitlines()
    assert head.startswith("tapeline: several jobs match 'kestrel'")
    for line, job_id, name in zip(candidates, ids[:0:-1], names[:0:-1], strict=True):
        assert re.fullmatch(rf"  {job_id}  {name}  (queued|running|succeeded)  \d+ s old", line)
    problem = json.loads(run("watch", "kestrel", "--json").stderr)["error"]
    assert (problem["code"], [job["id"] for job in problem["candidates"]]) == ("ambiguous_job", ids[:0:-1])


def test_a_name_that_several_jobs_have_means_the_newest_and_says_so(run: Run, client: Client) -> None:
    ids = [run("train", "-", spec=TINY | {"name": "owl"}).stdout.strip() for _ in range(3)]
    for job_id in ids:
        client.wait(job_id, timeout_s=30)
    result = run("show", "owl")
    assert (result.exit_code, result.stdout.splitlines()[0]) == (0, f"Job\t{ids[2]}")
    assert result.stderr == f"3 jobs are named 'owl'; using the newest, {ids[2]}\n"
    assert run("show", ids[0]).stderr == ""


def test_states_are_shown_in_the_order_in_which_they_came(run: Run, trained: str) -> None:
    lines = run("watch", trained).stdout.splitlines()
    assert [line for line in lines if not line.startswith("epoch")] == ["queued", "running", "succeeded"]


@pytest.mark.parametrize("columns", [60, 80, 100, 140])
def test_a_terminal_of_any_width_shows_ids_that_commands_accept(
    stack: LocalStack, run: Run, client: Client, trained: str, columns: int
) -> None:
    client.change(trained, name="a name that is longer than any column has room for")
    environ = {"COLUMNS": str(columns), "TERM": "xterm"}
    code, shown = in_terminal("--server", stack.url, "jobs", "-q", "than any column", environ=environ)
    assert code == 0
    head, line, *_ = plain(shown).splitlines()
    assert max(map(len, plain(shown).splitlines())) <= columns
    times = ["AGE", "TOOK"] if columns >= 80 else []
    assert head.split() == ["ID", "NAME", "STATUS", "EPOCH", "METRICS", *times]
    short = line.split()[0]
    assert trained.endswith(short)
    assert run("show", short).stdout.startswith(f"Job\t{trained}\n")
    assert "succeeded" in line
    assert "2/2" in line
    if columns >= 80:
        assert re.search(r"val accuracy \d\d\.\d\d%", line)
        assert re.search(r"\d+ (s|min)  +\d:\d\d$", line), "age and time from start to end"
    client.change(trained, name=None)


def test_a_job_is_paused_resumed_and_cancelled(run: Run, client: Client) -> None:
    job_id = run("train", "-", spec=LONG).stdout.strip()
    while client.get(job_id)["status"] != "running":
        pass
    assert run("resume", job_id).exit_code == 1
    assert "pause" in run("pause", job_id).stdout
    while client.get(job_id)["status"] != "paused":
        pass
    assert run("resume", job_id).stdout.startswith(f"{job_id}  queued")
    assert run("cancel", job_id).exit_code == 0
    assert client.wait(job_id, timeout_s=20)["status"] == "cancelled"
    assert run("watch", job_id).exit_code == 1
    assert json.loads(run("delete", job_id, "--json").stdout) == {"id": job_id, "deleted": True}
    assert run("watch", job_id).exit_code == 1


def test_a_job_is_forked_with_other_values(run: Run, client: Client, trained: str) -> None:
    forked = run("fork", trained, "--checkpoint", "1", "--set", "optimizer.learning_rate=0.01", "--set", "name=slower")
    assert forked.exit_code == 0, forked.stderr
    job = client.wait(forked.stdout.strip(), timeout_s=30)
    assert (job["status"], job["parent_id"], job["start_epoch"], job["name"]) == ("succeeded", trained, 1, "slower")
    assert job["resolved"]["optimizer"]["learning_rate"] == 0.01
    refused = run("fork", trained)
    assert refused.exit_code == 1
    assert "#/overrides/epochs" in refused.stderr
    assert run("fork", trained, "--set", "epochs").exit_code == 2


def test_a_job_is_reproduced_bit_for_bit(run: Run, trained: str) -> None:
    result = run("reproduce", trained, "--watch")
    assert result.exit_code == 0
    assert result.stdout.endswith(f"bit-identical to {trained}\n")


def test_one_checkpoint_is_fetched_and_opens(run: Run, trained: str, tmp_path: Path) -> None:
    result = run("download", trained, "--checkpoint", "best", "--to", "here", "--json")
    (written,) = json.loads(result.stdout)
    assert set(load_file(tmp_path / written["path"])) >= {"layers.0.weight", "layers.0.bias"}


def test_everything_is_fetched_into_a_folder_of_the_jobs_name(run: Run, trained: str, tmp_path: Path) -> None:
    result = run("download", trained)
    assert result.exit_code == 0
    names = {path.name for path in (tmp_path / trained).iterdir()}
    assert names >= {"checkpoint-0002.safetensors", "curves.png", "confusion.png", "samples.gif"}
    assert len(result.stdout.splitlines()) == len(names)


def test_a_checkpoint_that_is_not_there_leaves_nothing(run: Run, trained: str, tmp_path: Path) -> None:
    result = run("download", trained, "--checkpoint", "77", "--to", ".")
    assert result.exit_code == 1
    assert list(tmp_path.iterdir()) == []


def test_a_service_that_is_not_there_is_one_line_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    result = CliRunner().invoke(main, ["jobs", "--server", f"http://127.0.0.1:{port}"])
    assert result.exit_code == 1
    assert re.fullmatch(r"tapeline: no response from http://127\.0\.0\.1:\d+ .*tapeline up\n", result.stderr)


def test_settings_that_make_no_sense_are_one_line() -> None:
    result = CliRunner(env={"TAPELINE_PORT": "many"}).invoke(main, ["up"])
    assert result.exit_code == 1
    assert re.fullmatch(r"tapeline: TAPELINE_PORT must be a number.*\n", result.stderr)


def test_a_terminal_gets_a_bar(stack: LocalStack) -> None:
    environ = {"TERM": "xterm-256color", "COLUMNS": "120"}
    code, shown = in_terminal(
        "train", "-", "--watch", "--server", stack.url, stdin=json.dumps(TINY).encode(), environ=environ
    )
    assert code == 0
    assert "\x1b[?25l" in shown  # the cursor is hidden while the bar moves,
    assert shown.count("\x1b[?25h") >= 1  # and comes back
    last = plain(shown).rstrip().splitlines()[-4:]
    assert re.search(r"classifier .*epoch 2/2  val accuracy \d\d\.\d\d%  train loss [\d.]+  .*succeeded", last[0])
    assert re.search(r"val accuracy  \d\d\.\d\d% \S\S \d\d\.\d\d%", last[1])
    assert re.search(r"train loss +[\d.]+ █▁ [\d.]+", last[2])


def test_a_bar_fits_into_eighty_columns_with_a_metric(stack: LocalStack) -> None:
    environ = {"TERM": "xterm-256color", "COLUMNS": "80"}
    code, shown = in_terminal(
        "train", "-", "--watch", "--server", stack.url, stdin=json.dumps(TINY).encode(), environ=environ
    )
    assert code == 0
    bars = [line for line in plain(shown).splitlines() if "epoch 2/2" in line]
    assert re.search(r"epoch 2/2  val accuracy \d\d\.\d\d%  train loss [\d.]+  succeeded", bars[-1])


def test_the_demo_leaves_its_files_and_ends_by_itself(
    stack: LocalStack, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = tuple(spec | {"epochs": 1} for spec in demo_command.SPECS)
    monkeypatch.setattr(demo_command, "SPECS", short)
    result = run("demo")
    assert result.exit_code == 0, result.output
    assert "classifier  epoch 1/1  val accuracy" in result.stdout
    assert "gan  epoch 1/1  generator loss" in result.stdout
    assert re.search(r"\d\d\.\d\d% of unseen digits classified correctly", result.stdout)
    folder = tmp_path / "demo"
    for path in folder.iterdir():
        assert f"demo/{path.name}" in result.stdout
        if path.suffix == ".safetensors":
            assert np.isfinite(next(iter(load_file(path).values()))).all()
        else:
            with Image.open(path) as picture:
                picture.load()
    assert sorted(path.name for path in folder.iterdir()) == [
        "classifier-confusion.png",
        "classifier-curves.png",
        "classifier-digits.png",
        "classifier.safetensors",
        "gan-curves.png",
        "gan-film.gif",
        "gan-samples.png",
        "gan.safetensors",
    ]


def test_ctrl_c_in_the_middle_of_the_demo_cancels_its_jobs(stack: LocalStack, client: Client, tmp_path: Path) -> None:
    environ = os.environ | {"TAPELINE_HOME": str(stack.settings.home)}  # where a stack runs already: it is used
    # At its own length the classifier may have succeeded by the time that a busy machine cancels it.
    long = "demo.SPECS = tuple(spec | {'epochs': 1000} for spec in demo.SPECS)"
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"from service.cli import main; from service.cli.commands import demo; {long}; main()",
            "demo",
        ],
        cwd=tmp_path,
        env=environ,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == f"Using the running service at {stack.url}.\n"
    for line in process.stdout:
        if "epoch" in line:
            break
    process.send_signal(signal.SIGINT)
    told, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Interrupted." in told
    assert re.search(r"classifier \(job_\w+\): cancelled after \d+ of 1000 epochs", told)
    assert re.search(r"gan \(job_\w+\): cancelled after \d+ of 1000 epochs", told)
    assert [job["status"] for job in client.list(tag="demo", limit=2)] == ["cancelled", "cancelled"]
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def digits(stack: LocalStack, tmp_path: Path, client: Client) -> list[str]:
    """Three real digits as files."""
    names = []
    for number in range(3):
        path = client.download(f"/datasets/mnist-10k/validation/{number}.png", tmp_path / f"digit-{number}.png")
        names.append(path.name)
    return names


def test_a_classifier_says_what_pictures_show(run: Run, trained: str, digits: list[str], client: Client) -> None:
    result = run("predict", trained, *digits)
    assert result.exit_code == 0, result.output
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert [row[0] for row in rows] == digits
    answer = json.loads(run("predict", trained, *digits, "--checkpoint", "1", "--json").stdout)
    assert (answer["pictures"], answer["checkpoint"]) == (digits, 1)
    latest = client.predict(trained, [Path(name) for name in digits], checkpoint="latest")
    assert latest["checkpoint"] == 2
    assert [row[1] for row in rows] == [str(label) for label in latest["classes"]]


def test_a_file_that_is_not_a_picture_is_named(run: Run, trained: str, digits: list[str]) -> None:
    Path("notes.txt").write_text("no picture")
    result = run("predict", trained, digits[0], "notes.txt")
    what = "is not a supported image (PNG, JPEG, WebP, BMP or GIF)"
    assert (result.exit_code, result.stderr) == (1, f"tapeline: notes.txt {what}\n")
    assert run("predict", trained, "missing.png").stderr == "tapeline: missing.png: No such file or directory\n"
    assert (
        "is not best, latest or an epoch number" in run("predict", trained, digits[0], "--checkpoint", "newest").stderr
    )
    assert "available epochs: 1, 2" in run("predict", trained, digits[0], "--checkpoint", "9").stderr
    assert " is a classifier; use: tapeline predict " in run("generate", trained).stderr


def test_predictions_for_long_paths_can_be_told_apart_in_a_terminal(
    stack: LocalStack, trained: str, digits: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "Meine Fotos" / "Grüne Birnen und sonstiges Obst"
    folder.mkdir(parents=True)
    paths = [folder / f"Foto {number}.png" for number in (1, 2)]
    for path, digit in zip(paths, digits, strict=False):
        path.write_bytes(Path(digit).read_bytes())
    environ = {"COLUMNS": "80", "TERM": "xterm"}
    code, shown = in_terminal("--server", stack.url, "predict", trained, *map(str, paths), environ=environ)
    assert code == 0, shown
    lines = plain(shown).splitlines()
    assert max(map(len, lines)) <= 80
    for number in (1, 2):
        assert any(re.match(rf"….*Foto {number}\.png +\d+\.\d% +\d", line) for line in lines), shown


def test_files_of_the_wrong_kind_are_refused_in_words_of_the_command(run: Run, trained: str, tmp_path: Path) -> None:
    (tmp_path / "neu.csv").write_text("a,b\n1,2\n")
    refused = run("predict", trained, "neu.csv")
    assert refused.exit_code == 1
    told = " ".join(refused.stderr.split())
    assert told == "tapeline: the job is trained on images: give image files instead of a table"


def test_a_gan_makes_a_grid_and_a_film(run: Run, client: Client) -> None:
    gan = client.submit(
        {
            "kind": "gan",
            "epochs": 1,
            "generator": {"layers": [{"units": 784, "activation": "tanh"}]},
            "discriminator": {"layers": [{"units": 1, "activation": "sigmoid"}]},
        }
    )
    client.wait(gan["id"], timeout_s=60)
    result = run("generate", gan["id"], "-o", "grid.png", "--count", "9", "--scale", "1")
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith("checkpoint of epoch 1\n")
    with Image.open("grid.png") as grid:
        assert grid.size == (92, 92)  # three by three, and frames between
    assert run("generate", gan["id"], "--film", "--count", "2").exit_code == 0
    with Image.open(f"{gan['id']}.gif") as film:
        assert getattr(film, "n_frames", 1) > 12
    made = json.loads(run("generate", gan["id"], "--count", "1", "--seed", "3", "--json").stdout)
    again = client.generate(gan["id"], seeds=[3], with_latent=True)
    assert made["images"] == again["images"]
    assert client.generate(gan["id"], latent=again["latent"])["images"] == again["images"]


def test_photos_in_other_formats_are_classified_as_the_png_is(run: Run, trained: str, digits: list[str]) -> None:
    with Image.open(digits[0]) as digit:
        for kind in ("jpg", "webp", "bmp", "gif"):
            digit.resize((300, 300)).convert("RGB").save(f"photo.{kind}")
    result = run("predict", trained, digits[0], "photo.jpg", "photo.webp", "photo.bmp", "photo.gif")
    assert result.exit_code == 0, result.stderr
    assert len({line.split("\t")[1] for line in result.stdout.splitlines()}) == 1


def test_a_line_of_blocks_shows_how_values_went() -> None:
    assert sparkline([1, 2, 3, 4, 5, 6, 7, 8], 20) == "▁▂▃▄▅▆▇█"
    assert sparkline([5, 5, 5], 20) == "▁▁▁"
    assert sparkline([0, 0, 1, 1], 2) == "▁█"
    assert len(sparkline([float(value) for value in range(1000)], 37)) == 37


def test_what_a_preset_adapts_to_a_dataset_is_no_changed_setting(run: Callable[..., Result]) -> None:
    told = run("train", "-", "--dry-run", spec={"kind": "classifier", "dataset": "iris", "seed": 5})
    assert told.exit_code == 0, told.output
    assert [line for line in told.stdout.splitlines() if line.startswith("Settings")] == [
        "Settings\tseed: 5 (preset: 0)"
    ]
