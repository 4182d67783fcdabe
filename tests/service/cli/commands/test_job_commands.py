"""The commands for existing jobs: lists, names, actions, forks, downloads, predictions and generated images."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from tapeline import Client
from tests.service.cli.conftest import TINY, Run
from tests.terminals import run_in_terminal, strip_ansi

SORTS = ("created_at", "-created_at")
LONG = {"kind": "gan", "epochs": 1000}


def test_jobs_are_listed_in_tab_separated_columns_in_a_pipe(run: Run, trained: str) -> None:
    titles, *lines = run("jobs", "--kind", "classifier", "-q", trained, "--sort", "-created_at").stdout.splitlines()
    assert titles.split("\t") == ["ID", "KIND", "STATUS", "EPOCH", "NAME", "LAST EPOCH", "SUBMITTED", "TOOK (S)"]
    rows = [line.split("\t") for line in lines]
    assert {len(row) for row in rows} == {8}
    row = next(row for row in rows if row[0] == trained)
    assert row[1:4] == ["classifier", "succeeded", "2/2"]
    assert json.loads(run("jobs", "--json", "-q", trained).stdout)[0]["id"] == trained
    assert run("jobs", "-q", "nothing like it").stdout == ""
    submitted = [run("train", "-", spec=TINY | {"name": f"robin {number}"}).stdout.strip() for number in range(3)]
    listed = [run("jobs", "-q", "robin", "--sort", sort).stdout.splitlines()[1:] for sort in SORTS]
    ids = [[line.split("\t")[0] for line in lines] for lines in listed]
    assert ids == [submitted, submitted[::-1]]


def test_workers_are_listed_with_name_and_host(run: Run) -> None:
    titles, *lines = run("workers").stdout.splitlines()
    assert titles.split("\t") == ["NAME", "HOST", "PROCESS", "SLOTS", "STATE", "JOBS", "VERSION", "CPU", "NUMPY"]
    (worker,) = json.loads(run("workers", "--json").stdout)
    (cells,) = (line.split("\t") for line in lines)
    assert cells[:3] == [worker["name"], worker["host"], str(worker["pid"])]
    assert worker["name"] == "of-the-tests"
    assert cells[6] == worker["version"] != "-"
    assert run("workers", "drain", "nowhere").exit_code == 1
    assert "there is no worker 'nowhere'" in run("workers", "drain", "nowhere").stderr


def test_a_worker_is_drained_by_its_name_and_claims_jobs_again(run: Run, client: Client) -> None:
    for options, order in ((["--finish"], "finish"), ([], "release")):
        drained = run("workers", "drain", "of-the-tests", *options)
        assert drained.exit_code == 0, drained.stderr
        (worker,) = client.workers()
        assert (worker["draining"], worker["drain"]) == (True, order)
        assert drained.stdout.startswith(f"{worker['id']}  draining")
        assert run("workers", "undrain", worker["id"]).stdout == f"{worker['id']}  claims jobs again\n"
    assert client.workers()[0]["drain"] is None


def test_a_job_can_be_given_by_its_name_or_part_of_its_id(run: Run) -> None:
    names = ("falcon", "kestrel one", "kestrel two")
    ids = [run("train", "-", spec=TINY | {"name": name}).stdout.strip() for name in names]
    assert run("watch", "falcon").exit_code == 0
    assert run("watch", ids[1][-8:].lower()).exit_code == 0
    ambiguous = run("watch", "kestrel")
    assert ambiguous.exit_code == 1
    head, *candidates = ambiguous.stderr.splitlines()
    assert head.startswith("tapeline: several jobs match 'kestrel'")
    for line, job_id, name in zip(candidates, ids[:0:-1], names[:0:-1], strict=True):
        assert re.fullmatch(rf"  {job_id}  {name}  (queued|running|succeeded)  \d+ (s|min|h|d) old", line)
    problem = json.loads(run("watch", "kestrel", "--json").stderr)["error"]
    assert (problem["code"], [job["id"] for job in problem["candidates"]]) == ("ambiguous_job", ids[:0:-1])


def test_a_name_shared_by_several_jobs_selects_the_newest_with_a_note(run: Run, client: Client) -> None:
    ids = [run("train", "-", spec=TINY | {"name": "owl"}).stdout.strip() for _ in range(3)]
    for job_id in ids:
        client.job(job_id).wait(timeout_s=120)
    result = run("show", "owl")
    assert (result.exit_code, result.stdout.splitlines()[0]) == (0, f"Job\t{ids[2]}")
    assert result.stderr == f"3 jobs are named 'owl'; using the newest, {ids[2]}\n"
    assert run("show", ids[0]).stderr == ""


@pytest.mark.stack
@pytest.mark.parametrize("columns", [60, 80, 100, 140])
def test_a_terminal_of_any_width_shows_ids_that_commands_accept(
    server_url: str, run: Run, client: Client, trained: str, columns: int
) -> None:
    client.job(trained).change(name="a name that is longer than any column has room for")
    environ = {"COLUMNS": str(columns), "TERM": "xterm"}
    exit_code, output = run_in_terminal("--server", server_url, "jobs", "-q", "than any column", environ=environ)
    assert exit_code == 0
    head, line, *_ = strip_ansi(output).splitlines()
    assert max(map(len, strip_ansi(output).splitlines())) <= columns
    times = ["AGE", "TOOK"] if columns >= 80 else []
    assert head.split() == ["ID", "NAME", "STATUS", "EPOCH", "LAST", "EPOCH", *times]
    short_id = line.split()[0]
    assert trained.endswith(short_id)
    assert run("show", short_id).stdout.startswith(f"Job\t{trained}\n")
    assert "succeeded" in line
    assert "2/2" in line
    if columns >= 80:
        assert re.search(r"val accuracy \d\d\.\d\d%", line)
        assert re.search(r"\d+ (s|min|h|d)  +\d:\d\d$", line), "age and time from start to end"
    client.job(trained).change(name=None)


def test_a_job_is_paused_resumed_cancelled_and_deleted(run: Run, client: Client) -> None:
    job_id = run("train", "-", spec=LONG).stdout.strip()
    while client.job(job_id)["status"] != "running":
        pass
    assert run("resume", job_id).exit_code == 1
    assert "pause" in run("pause", job_id).stdout
    while client.job(job_id)["status"] != "paused":
        pass
    assert run("resume", job_id).stdout.startswith(f"{job_id}  queued")
    assert run("cancel", job_id).exit_code == 0
    assert client.job(job_id).wait(timeout_s=120)["status"] == "cancelled"
    assert run("watch", job_id).exit_code == 1
    assert json.loads(run("delete", job_id, "--json").stdout) == {"id": job_id, "deleted": True}
    assert run("watch", job_id).exit_code == 1


def test_a_job_that_would_fail_again_or_has_succeeded_is_not_retried(run: Run, client: Client, trained: str) -> None:
    diverging = {
        "layers": [{"units": 10, "activation": "linear"}],
        "loss": {"name": "squared_error", "reduction": "sum"},
        "optimizer": {"name": "sgd", "learning_rate": 10},
        "schedule": {"name": "constant"},
    }
    job = client.submit(TINY | diverging).wait(timeout_s=120)
    assert job.status == "failed"
    for job_id, state in ((job.id, "failed"), (trained, "succeeded")):
        refused = run("retry", job_id)
        assert refused.exit_code == 1
        assert f"has {state} and cannot be retried; possible actions: " in refused.stderr


def test_a_job_is_forked_with_other_settings(run: Run, client: Client, trained: str) -> None:
    forked = run("fork", trained, "--checkpoint", "1", "--set", "optimizer.learning_rate=0.01", "--set", "name=slower")
    assert forked.exit_code == 0, forked.stderr
    job = client.job(forked.stdout.strip()).wait(timeout_s=120)
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


def test_one_checkpoint_is_downloaded(run: Run, trained: str, tmp_path: Path) -> None:
    result = run("download", trained, "--checkpoint", "best", "--to", "here", "--json")
    (written,) = json.loads(result.stdout)
    assert b"layers.0.weight" in (tmp_path / written["path"]).read_bytes()


def test_all_files_are_downloaded_into_a_folder_named_after_the_job(run: Run, trained: str, tmp_path: Path) -> None:
    result = run("download", trained)
    assert result.exit_code == 0
    names = {path.name for path in (tmp_path / trained).iterdir()}
    assert names >= {"checkpoint-0002.safetensors", "curves.png", "confusion.png", "samples.gif"}
    assert len(result.stdout.splitlines()) == len(names)


def test_downloading_a_missing_checkpoint_leaves_no_files(run: Run, trained: str, tmp_path: Path) -> None:
    result = run("download", trained, "--checkpoint", "77", "--to", ".")
    assert result.exit_code == 1
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def digits(tmp_path: Path, client: Client, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The file names of three real digits, in the current folder."""
    monkeypatch.chdir(tmp_path)
    names = []
    for number in range(3):
        path = client.download(f"/datasets/mnist-10k/validation/{number}.png", tmp_path / f"digit-{number}.png")
        names.append(path.name)
    return names


def test_predict_classifies_images_with_the_selected_checkpoint(
    run: Run, trained: str, digits: list[str], client: Client
) -> None:
    result = run("predict", trained, *digits)
    assert result.exit_code == 0, result.output
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert [row[0] for row in rows] == digits
    document = json.loads(run("predict", trained, *digits, "--checkpoint", "1", "--json").stdout)
    assert (document["pictures"], document["checkpoint"]) == (digits, 1)
    latest = client.job(trained).predict([Path(name) for name in digits], checkpoint="latest")
    assert latest["checkpoint"] == 2
    assert [row[1] for row in rows] == [str(label) for label in latest["classes"]]


def test_unusable_files_checkpoints_and_kinds_of_job_are_explained(run: Run, trained: str, digits: list[str]) -> None:
    Path("notes.txt").write_text("no picture")
    result = run("predict", trained, digits[0], "notes.txt")
    reason = "is not a PNG, JPEG, WebP, BMP or GIF image"
    assert (result.exit_code, result.stderr) == (1, f"tapeline: notes.txt {reason}\n")
    assert run("predict", trained, "missing.png").stderr == "tapeline: missing.png: No such file or directory\n"
    assert (
        "is not best, latest or an epoch number" in run("predict", trained, digits[0], "--checkpoint", "newest").stderr
    )
    assert "available epochs: 1, 2" in run("predict", trained, digits[0], "--checkpoint", "9").stderr
    assert " is a classifier; use: tapeline predict " in run("generate", trained).stderr


@pytest.mark.stack
def test_predictions_for_long_paths_can_be_told_apart_in_a_terminal(
    server_url: str, trained: str, digits: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "Meine Fotos" / "Grüne Birnen und sonstiges Obst"
    folder.mkdir(parents=True)
    paths = [folder / f"Foto {number}.png" for number in (1, 2)]
    for path, digit in zip(paths, digits, strict=False):
        path.write_bytes(Path(digit).read_bytes())
    environ = {"COLUMNS": "80", "TERM": "xterm"}
    exit_code, output = run_in_terminal("--server", server_url, "predict", trained, *map(str, paths), environ=environ)
    assert exit_code == 0, output
    lines = strip_ansi(output).splitlines()
    assert max(map(len, lines)) <= 80
    for number in (1, 2):
        assert any(re.match(rf"….*Foto {number}\.png +\d+\.\d% +\d", line) for line in lines), output


def test_a_table_for_an_image_classifier_is_refused_in_terms_of_the_command(
    run: Run, trained: str, tmp_path: Path
) -> None:
    (tmp_path / "neu.csv").write_text("a,b\n1,2\n")
    refused = run("predict", trained, "neu.csv")
    assert refused.exit_code == 1
    message = " ".join(refused.stderr.split())
    assert message == "tapeline: the job is trained on images: give image files instead of a table"


def test_a_gan_generates_a_grid_a_film_and_repeatable_images(run: Run, client: Client) -> None:
    gan = client.submit(
        {
            "kind": "gan",
            "epochs": 1,
            "generator": {"layers": [{"units": 784, "activation": "tanh"}]},
            "discriminator": {"layers": [{"units": 1, "activation": "sigmoid"}]},
        }
    )
    client.job(gan["id"]).wait(timeout_s=120)
    result = run("generate", gan["id"], "-o", "grid.png", "--count", "9", "--scale", "1")
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith("checkpoint of epoch 1\n")
    with Image.open("grid.png") as grid:
        assert grid.size == (92, 92)  # three by three, with borders
    assert run("generate", gan["id"], "--film", "--count", "2").exit_code == 0
    with Image.open(f"{gan['id']}.gif") as film:
        assert film.format == "GIF"
    document = json.loads(run("generate", gan["id"], "--count", "1", "--seed", "3", "--json").stdout)
    repeated = client.job(gan["id"]).generate(seeds=[3], with_latent=True)
    assert document["images"] == repeated["images"]
    assert client.job(gan["id"]).generate(latent=repeated["latent"])["images"] == repeated["images"]


def test_photos_in_other_formats_are_classified_like_the_png(run: Run, trained: str, digits: list[str]) -> None:
    with Image.open(digits[0]) as digit:
        for suffix in ("jpg", "webp", "bmp", "gif"):
            digit.resize((300, 300)).convert("RGB").save(f"photo.{suffix}")
    result = run("predict", trained, digits[0], "photo.jpg", "photo.webp", "photo.bmp", "photo.gif")
    assert result.exit_code == 0, result.stderr
    assert len({line.split("\t")[1] for line in result.stdout.splitlines()}) == 1
