"""The commands about the queue, owners, share links, webhooks and budgets."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.shell_completion import ShellComplete

from service.cli import main
from tapeline import Client
from tests.service.cli.conftest import TINY, Run

ENDLESS: dict[str, Any] = TINY | {"epochs": 2000}


def test_the_queue_shows_where_jobs_wait_and_why(run: Run, client: Client) -> None:
    ids = [run("train", "-", spec=ENDLESS | {"seed": seed}).stdout.strip() for seed in range(8)]
    titles, *lines = run("queue").stdout.splitlines()
    assert titles.split("\t") == ["ID", "NAME", "POSITION", "AHEAD", "WAITED", "STARTS"]
    reason = lines.pop()
    assert re.fullmatch(r"you run \d+ of \d+ slots?|a worker is about to start it", reason)
    first, second, *_ = (line.split("\t") for line in lines)
    assert first[2:4] == ["next", "own 0, others 0"]
    assert second[2:4] == ["about 2nd", "own 1, others 0"]
    queued = json.loads(run("queue", "--json").stdout)
    assert queued["data"][-1]["id"] == ids[-1]
    titles, counts = run("queue", "--all").stdout.splitlines()[-2:]
    assert titles.split("\t") == ["OWNER", "NAME", "RUNNING", "QUEUED"]
    running = len(ids) - len(lines)
    assert counts.split("\t") == ["-", "", f"{running}", f"{len(lines)}"]
    for job_id in ids:
        client.job(job_id).cancel()
    for job_id in ids:
        client.job(job_id).wait(timeout_s=120)
    assert run("queue").stdout == "none of your jobs waits\n"
    assert run("queue", "--all").stdout == "no job is queued or running\n"


def test_the_settings_of_an_owner_are_changed_and_set_back(run: Run) -> None:
    changed = run("owners", "set", "everybody", "--weight", "2.5", "--running-jobs", "7", "--name", "Alle für alle")
    assert changed.exit_code == 0, changed.output
    rows = dict(line.split("\t") for line in changed.stdout.splitlines())
    assert (rows["Name"], rows["Weight"], rows["Running jobs"]) == ("Alle für alle", "2.5", "7")
    assert rows["Highest priority"] == "9 (default)"
    titles, line, *_ = run("owners").stdout.splitlines()
    assert titles.split("\t") == ["OWNER", "NAME", "WEIGHT", "CAP", "SHARE", "RUNNING", "QUEUED"]
    assert line.split("\t")[:4] == ["-", "Alle für alle", "2.5", "7"]
    default = ["--weight", "default", "--running-jobs", "default", "--name", "default"]
    restored = json.loads(run("owners", "set", "-", *default, "--json").stdout)
    assert (restored["settings"]["weight"], restored["settings"]["running_jobs"], restored["display_name"]) == (
        1,
        None,
        None,
    )
    assert json.loads(run("owners", "show", "-", "--json").stdout)["limits"]["running_jobs"] is None
    assert "#/weight: must be greater than or equal to 0.001" in run("owners", "set", "-", "--weight", "0").stderr
    assert "there is no owner 'nobody'" in run("owners", "set", "nobody", "--running-jobs", "2").stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["owners", "set", "ann"], "nothing to change: give an option, such as --weight 2"),
        (
            ["owners", "set", "ann", "--running-jobs", "two"],
            "--running-jobs is 'two': give a whole number, or 'default'",
        ),
        (["share", "first", "--expires", "1 month"], "--expires is '1 month': write it as 90d, 12h or 30m"),
    ],
)
def test_values_that_cannot_be_read_are_named(run: Run, arguments: list[str], message: str) -> None:
    refused = run(*arguments)
    assert (refused.exit_code, message in refused.stderr) == (2, True)


def test_links_are_created_listed_and_revoked(run: Run, client: Client, trained: str) -> None:
    url = run("share", trained).stdout.strip()
    assert re.fullmatch(r"http://\S+/shared/tsh_[0-9a-f]{12}_[0-9a-f]{64}", url)
    compared = client.share(trained, trained, expires_at=datetime(2035, 1, 31, 12, tzinfo=UTC))
    assert compared["path"] == f"/comparisons?a={trained}&b={trained}"
    titles, *lines = (line.split("\t") for line in run("shares").stdout.splitlines())
    assert titles == ["ID", "SHOWS", "CREATED", "EXPIRES"]
    listed = {share_id: (path, expires) for share_id, path, _, expires in lines}
    assert listed[compared["id"]] == (compared["path"], compared["expires_at"][:10])
    assert json.loads(run("shares", "--json").stdout)[0]["id"] == compared["id"]
    (other,) = (share_id for share_id in listed if share_id.removeprefix("shr_") in url)
    assert listed[other] == (f"/jobs/{trained}", "never")
    for share_id in (other, compared["id"]):
        assert run("shares", "revoke", share_id).stdout == f"{share_id}  revoked\n"
    assert "the link was revoked" in run("shares", "revoke", other).stderr
    assert run("shares").stderr == "no links; create one with: tapeline share JOB\n"


def test_a_dataset_is_published_and_withdrawn(run: Run, tmp_path: Path) -> None:
    rows = "".join(f"{number * number % 17},{'odd' if number % 2 else 'even'}\n" for number in range(40))
    (tmp_path / "rows.csv").write_text(f"x,parity\n{rows}")
    uploaded = run("upload", "rows.csv", "--name", "for-all")
    assert uploaded.exit_code == 0, uploaded.output
    assert json.loads(run("datasets", "publish", "for-all", "--json").stdout)["shared"] is True
    assert run("datasets", "publish", "for-all", "--withdraw").stdout == "for-all  withdrawn\n"
    assert "iris is not an uploaded dataset" in run("datasets", "publish", "iris").stderr
    assert run("datasets", "delete", "for-all").exit_code == 0


def test_a_job_pauses_when_its_budget_is_spent_and_goes_on_with_a_larger_one(run: Run, client: Client) -> None:
    job_id = run("train", "-", "--budget", "0.1", spec=ENDLESS).stdout.strip()
    while (job := client.job(job_id))["status"] != "paused":
        pass
    assert job["reason"] == "budget"
    assert re.search(r"^Status\tpaused \(budget\), epoch \d+/2000$", run("show", job_id).stdout, re.MULTILINE)
    assert "give it more with --budget SECONDS" in run("resume", job_id).stderr
    assert run("resume", job_id, "--budget", "1e6").stdout == f"{job_id}  queued\n"
    assert client.job(job_id).cancel().wait(timeout_s=120)["status"] == "cancelled"


def test_a_webhook_is_created_tested_changed_and_deleted(run: Run, client: Client) -> None:
    assert "tapeline webhooks create URL" in run("webhooks").stderr
    refused = run("webhooks", "create", "https://127.0.0.1/hook")
    assert refused.exit_code == 1
    assert "#/url: leads to an address that is not public: 127.0.0.1" in refused.stderr
    # A public address at which nobody answers.
    created = run(
        "webhooks", "create", "https://[2606:4700::1111]:9/hook", "--on", "job.failed", "--description", "chat"
    )
    assert created.exit_code == 0, created.output
    rows = dict(line.split("\t") for line in created.stdout.splitlines())
    assert rows["Secret"].startswith("whsec_")
    assert "shown once" in created.stderr
    webhook_id = rows["Webhook"]
    titles, line = run("webhooks").stdout.splitlines()
    assert titles.split("\t") == ["ID", "URL", "STATE", "EVENTS"]
    assert line.split("\t") == [webhook_id, "https://[2606:4700::1111]:9/hook", "enabled", "job.failed"]
    assert client.webhook(webhook_id)["description"] == "chat"
    typed = ShellComplete(main, {}, "tapeline", "").get_completions(
        ["--server", client.server, "webhooks", "set"], "whk"
    )
    assert [(item.value, item.help) for item in typed] == [(webhook_id, line.split("\t")[1])]
    rotated = json.loads(run("webhooks", "rotate", webhook_id, "--json").stdout)
    assert rotated["secret"] != rows["Secret"]
    tested = run("webhooks", "test", webhook_id)
    assert tested.exit_code == 1
    message_id, answer = tested.stdout.split("  ", 1)
    assert answer.startswith("failed: no connection")
    titles, line = run("webhooks", "deliveries", webhook_id).stdout.splitlines()
    assert titles.split("\t")[:3] == ["ID", "TYPE", "ABOUT"]
    assert line.split("\t")[:3] == [message_id, "webhook.test", "test"]
    assert run("webhooks", "deliveries", webhook_id, "--status", "delivered").stdout == ""
    assert run("webhooks", "redeliver", webhook_id, message_id).stdout == f"{message_id}  pending\n"
    changed = run("webhooks", "set", webhook_id, "--disable", "--on", "sweep.ended")
    assert changed.stdout == f"{webhook_id}  disabled: its owner has disabled it\n"
    assert "nothing to change" in run("webhooks", "set", webhook_id).stderr
    assert "disabled" in run("webhooks", "test", webhook_id).stderr
    assert run("webhooks", "delete", webhook_id).stdout == f"{webhook_id}  deleted\n"
    assert "there is no webhook" in run("webhooks", "delete", webhook_id).stderr
