"""`docker compose up`: the service starts, trains jobs of both kinds, and survives restarts of parts."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import threading

import pytest

from tests.compose.conftest import IMAGE, Service, docker

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(480)]

LONG_JOB = {"kind": "gan", "epochs": 12, "seed": 3}
"""A job of about ten seconds, which leaves time to disturb it."""


@pytest.fixture(scope="module")
def undisturbed_digest(service: Service) -> str:
    """The result digest of LONG_JOB when nothing disturbs it."""
    return str(service.wait_until_success(service.submit(**LONG_JOB))["result_digest"])


def test_all_containers_are_healthy_after_startup(service: Service) -> None:
    names = ["postgres-1", "redis-1", "scheduler-1", "web-1", "worker-1", "worker-2"]
    assert service.states() == dict.fromkeys(names, "healthy")
    assert service.http.get("/readyz").json()["status"] == "ready"
    assert len(service.http.get("/workers").json()["data"]) == 2


def test_containers_are_locked_down_and_only_web_publishes_a_port(service: Service) -> None:
    published = []
    for container in service.compose("ps", "--all", "--quiet").split():
        (details,) = json.loads(docker("inspect", container))
        host, name = details["HostConfig"], details["Name"]
        assert host["ReadonlyRootfs"], name
        assert host["CapDrop"] == ["ALL"], name
        assert not host["CapAdd"], name
        assert "no-new-privileges:true" in host["SecurityOpt"], name
        assert details["Config"]["User"] not in ("", "root", "0"), name
        assert host["Memory"] > 0, name
        assert host["PidsLimit"] > 0, name
        assert host["Init"], name
        published += [
            (name.split("-")[-2], binding["HostIp"])
            for bindings in host["PortBindings"].values()
            for binding in bindings
        ]
    assert published == [("web", "127.0.0.1")]


def test_database_and_broker_are_only_in_internal_networks(service: Service) -> None:
    for name in ("postgres", "redis"):
        (details,) = json.loads(docker("inspect", *service.containers(name)))
        networks = json.loads(docker("network", "inspect", *details["NetworkSettings"]["Networks"]))
        assert [network["Internal"] for network in networks] == [True], name


def test_the_image_is_small_unprivileged_and_without_a_compiler(image: str) -> None:
    megabytes = docker("run", "--rm", image, "du", "-sm", "/opt/tapeline").split()[0]
    assert int(megabytes) < 345  # everything added to the base image, except Fashion-MNIST
    compilers = docker("run", "--rm", image, "sh", "-c", "for t in gcc cc make ld; do command -v $t; done; true")
    assert compilers == ""
    assert docker("run", "--rm", image, "python", "-c", "import os; print(os.getuid())").strip() == "10001"


CLASS_NAMES = [
    "猫 貓",
    "ねこ イヌ",
    "고양이",
    "แมว",
    "قطة",
    "حیوان",
    "חתול",
    "बिल्ली",
    "বিড়াল",
    "பூனை",
    "పిల్లి",
    "ಬೆಕ್ಕು",
    "പൂച്ച",
    "બિલાડી",
    "ਬਿੱਲੀ",
    "ବିଲେଇ",
    "පූසා",
    "ဆန့်",
    "ឆ្មា",
    "ແມວ",
    "བྱི་ལ",
    "ድመት",
    "կատու",
    "კატა",
    "ބުޅާ",
    "кіт",
    "γάτα",
    "mèo",
]


def test_fonts_in_the_image_cover_class_names_in_many_scripts(image: str) -> None:
    code = f"from service.pictures.fonts import legible; print(ascii(legible({CLASS_NAMES!r})))"
    assert ast.literal_eval(docker("run", "--rm", image, "python", "-c", code)) == CLASS_NAMES
    megabytes = docker("run", "--rm", image, "du", "-sm", "/usr/local/share/fonts").split()[0]
    assert int(megabytes) < 12
    copyright_files = docker("run", "--rm", image, "sh", "-c", "cd /usr/local/share/doc && ls */copyright").split()
    assert copyright_files == [f"{name}/copyright" for name in ("fonts-noto-core", "fonts-wqy-microhei", "libfribidi0")]


def test_jobs_of_both_kinds_are_trained_and_downloaded(service: Service) -> None:
    specs = [
        {"kind": "classifier", "epochs": 2},
        {"kind": "gan", "epochs": 2},
        {"kind": "classifier", "epochs": 1, "dataset": {"name": "fashion-mnist"}},  # bundled in the image
    ]
    ids = [service.submit(**spec) for spec in specs]
    for job_id in ids:
        service.wait_until_success(job_id)
        service.check_download(job_id)
        curves = service.http.get(f"/jobs/{job_id}/plots/curves.png")
        assert (curves.status_code, curves.content[:4]) == (200, b"\x89PNG")
    page = service.http.get(f"/ui/jobs/{ids[0]}").text
    script = re.search(r'<script defer src="([^"]+uPlot[^"]+)"', page)
    assert script is not None
    assert len(service.http.get(script[1]).raise_for_status().content) > 40_000


def test_two_workers_share_four_jobs(service: Service) -> None:
    ids = [service.submit(kind="gan", epochs=3, seed=seed) for seed in range(4)]
    for job_id in ids:
        service.wait_until_success(job_id)
    workers = [service.trained_by(job_id) for job_id in ids]
    assert {len(claims) for claims in workers} == {1}
    assert len({claims[0] for claims in workers}) == 2


def test_a_job_whose_worker_is_killed_finishes_on_the_other_with_the_same_bits(
    service: Service, undisturbed_digest: str
) -> None:
    job_id = service.submit(**LONG_JOB)
    service.wait_until_epoch(job_id, 2)
    (victim,) = service.trained_by(job_id)
    docker("update", "--restart=no", victim)  # otherwise it would be back before its lease expires
    kill = (  # the worker, not its fork server and children, which have the same command
        "import os, pathlib; os.kill(min(int(p.parent.name) for p in pathlib.Path('/proc').glob('[0-9]*/cmdline')"
        " if p.read_bytes() == b'python\\0-m\\0workers\\0' and p.parent.name != '1'), 9)"
    )
    subprocess.run(["docker", "exec", victim, "python", "-c", kill], check=False, capture_output=True)
    job = service.wait_until_success(job_id)
    assert docker("inspect", "--format={{.State.Running}}", victim).strip() == "false"
    first, *others = service.trained_by(job_id)
    assert first == victim
    assert others
    assert victim not in others
    assert job["result_digest"] == undisturbed_digest
    assert job["attempt"] == 2
    docker("update", "--restart=unless-stopped", victim)
    docker("start", victim)


def test_a_stopped_worker_hands_its_job_back_before_it_is_killed(service: Service, undisturbed_digest: str) -> None:
    job_id = service.submit(**LONG_JOB)
    service.wait_until_epoch(job_id, 2)
    (stopped,) = service.trained_by(job_id)
    docker("stop", stopped)
    assert docker("inspect", "--format={{.State.ExitCode}}", stopped).strip() == "0"
    job = service.wait_until_success(job_id)
    assert "released" in [event.get("reason") for event in service.log(job_id)]
    assert (job["result_digest"], job["attempt"]) == (undisturbed_digest, 1)
    docker("start", stopped)


@pytest.mark.parametrize("name", ["redis", "postgres"])
def test_a_restart_of_the_broker_or_the_database_loses_nothing(
    service: Service, undisturbed_digest: str, name: str
) -> None:
    ids = [service.submit(**LONG_JOB) for _ in range(3)]
    service.wait_until_epoch(ids[0], 2)
    service.compose("restart", name)
    for job_id in ids:
        assert service.wait_until_success(job_id)["result_digest"] == undisturbed_digest
        assert len(service.log(job_id)) > 12


def test_a_rolling_restart_of_everything_loses_none_of_twenty_jobs(service: Service) -> None:
    ids = [service.submit(kind="classifier", epochs=6, seed=number % 2) for number in range(20)]
    running_counts: list[int] = []
    done = threading.Event()

    def poll() -> None:
        while not done.wait(0.5):
            running_counts.append(sum(service.job(job_id)["status"] == "running" for job_id in ids))

    client = threading.Thread(target=poll)
    client.start()
    try:
        service.wait_until_epoch(ids[0], 1)
        for container in service.containers("worker"):
            docker("restart", container)
        for name in ("scheduler", "web", "redis", "postgres"):
            service.compose("restart", name)
        jobs = [service.wait_until_success(job_id, 180) for job_id in ids]
    finally:
        done.set()
        client.join()
    assert max(running_counts) > 0
    assert len({job["result_digest"] for job in jobs}) == 2  # one for each seed
    for job_id in ids:
        assert [event["epoch"] for event in service.log(job_id) if event["type"] == "metrics"] == [1, 2, 3, 4, 5, 6]


def test_a_stack_keeps_all_data_across_down_and_up(service: Service, undisturbed_digest: str) -> None:
    job_id = service.submit(**LONG_JOB)
    service.wait_until_epoch(job_id, 2)
    succeeded_jobs = service.http.get("/jobs?limit=100&status=succeeded").json()["data"]
    assert succeeded_jobs
    service.compose("down")
    service.compose("up", "--detach", "--wait")
    for job in succeeded_jobs:
        assert service.job(job["id"])["result_digest"] == job["result_digest"]
    service.check_download(succeeded_jobs[0]["id"])
    assert service.wait_until_success(job_id)["result_digest"] == undisturbed_digest
    assert IMAGE in docker("inspect", "--format={{.Config.Image}}", *service.containers("web"))
