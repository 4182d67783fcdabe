"""Compose finds the variables of the documented commands where the documents tell to write them."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from service.maintenance.worker_invitation import WorkerInvitation

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*(ROOT / "docs").glob("*.md"), *(ROOT / "deploy").glob("*.yml"), ROOT / "README.md"]


def compose_commands(text: str) -> Iterator[list[str]]:
    for line in re.findall(r"""(?:^|[`# ])(docker compose [^`"#|&;<\\\n]*)""", text, re.MULTILINE):
        yield shlex.split(line)


def env_file(command: list[str]) -> Path:
    """The file from which Compose reads variables: ``--env-file``, which is relative to the current folder, or
    ``.env`` beside the first ``-f`` file, or in the current folder."""
    if "--env-file" in command:
        return Path(command[command.index("--env-file") + 1])
    first = next((value for option, value in pairwise(command) if option in ("-f", "--file")), None)
    return (Path(first).parent if first else Path()) / ".env"


def test_every_documented_command_reads_env_in_the_folder_where_it_is_documented_to_be() -> None:
    commands = [command for path in DOCUMENTS for command in compose_commands(path.read_text(encoding="utf-8"))]
    assert len(commands) > 20
    assert any("worker.yml" in command for command in commands)
    assert [" ".join(command) for command in commands if env_file(command) != Path(".env")] == []


def compose_config(folder: Path, *arguments: str) -> dict[str, Any]:
    """The services as compose resolves them."""
    command = ["docker", "compose", *arguments, "config", "--format", "json"]
    environ = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(folder)}
    output = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)
    assert output.returncode == 0, output.stderr
    found: dict[str, Any] = json.loads(output.stdout)["services"]
    return found


needs_compose = pytest.mark.skipif(shutil.which("docker") is None, reason="there is no docker command")


@pytest.mark.stack
@needs_compose
def test_a_worker_on_another_machine_gets_the_variables_of_its_invitation(tmp_path: Path) -> None:
    invitation = WorkerInvitation(
        variables={
            "TAPELINE_DATABASE_URL": "postgresql+psycopg://w:p%24x%23@10.0.0.1/t?sslmode=verify-full",
            "TAPELINE_CA": "LS0tLS1CRUdJTg==",
            "AWS_SECRET_ACCESS_KEY": "a/b+c=",
        },
        remarks=('It\'s "quoted".',),
        share=None,
    )
    shutil.copy(ROOT / "deploy" / "worker.yml", tmp_path)
    (tmp_path / "worker.env").write_text(invitation.env_file())
    assert compose_config(tmp_path, "-f", "worker.yml")["worker"]["environment"] == invitation.variables


@pytest.mark.stack
@needs_compose
@pytest.mark.parametrize("is_cloud", [True, False], ids=["cloud", "endpoint"])
def test_credentials_of_a_bucket_reach_all_that_use_it_and_are_unset_otherwise(tmp_path: Path, is_cloud: bool) -> None:
    shutil.copy(ROOT / "docker-compose.yml", tmp_path)
    cloud = "AWS_ACCESS_KEY_ID=ours\nAWS_SECRET_ACCESS_KEY=secret\n"
    server = "TAPELINE_STORE_ENDPOINT=http://seaweedfs:8333\n"
    (tmp_path / ".env").write_text("TAPELINE_STORE=s3://bucket\n" + (cloud if is_cloud else server))
    services = compose_config(tmp_path, "--profile", "s3")
    for name in ("web", "worker", "s3-worker", "scheduler", "migrate"):
        environment = services[name]["environment"]
        assert environment["AWS_ACCESS_KEY_ID"] == ("ours" if is_cloud else None), name
        assert bool(environment["AWS_SHARED_CREDENTIALS_FILE"]) is not is_cloud, name
        assert environment["AZURE_STORAGE_ACCOUNT_KEY"] is None, "an empty one would be taken for a key"
