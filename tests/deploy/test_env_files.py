"""Compose finds the variables of the documented commands where the documents tell to write them."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DEPLOYMENT = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
ON_ANOTHER_MACHINE = DEPLOYMENT.partition("# .env on each other machine\n")[2].partition("```")[0]
"""The lines of ``.env``, and the command after them."""
DOCUMENTS = [*(ROOT / "docs").glob("*.md"), *(ROOT / "deploy").glob("*.yml"), ROOT / "README.md"]


def compose_commands(text: str) -> Iterator[list[str]]:
    for line in re.findall(r"""(?:^|[`# ])(docker compose [^`"#|&;<\n]*)""", text, re.MULTILINE):
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
    assert sum("deploy/worker.yml" in command for command in commands) > 1
    assert [" ".join(command) for command in commands if env_file(command) != Path(".env")] == []


def documented_command() -> list[str]:
    (command,) = compose_commands(ON_ANOTHER_MACHINE)
    return command


def documented_variables() -> dict[str, str]:
    return dict(re.findall(r"^([A-Z_]+)=(\S+)", ON_ANOTHER_MACHINE, re.MULTILINE))


def test_the_documented_variables_are_all_that_a_worker_on_another_machine_needs() -> None:
    text = (ROOT / "deploy" / "worker.yml").read_text(encoding="utf-8")
    assert set(re.findall(r"\$\{([A-Z_]+):\?", text)) == set(documented_variables())


def compose_config(folder: Path, environ: Mapping[str, str]) -> dict[str, Any]:
    command = documented_command()
    command = [*command[: command.index("up")], "config", "--format", "json"]
    output = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)
    assert output.returncode == 0, output.stderr
    found: dict[str, Any] = json.loads(output.stdout)
    return found


@pytest.mark.skipif(shutil.which("docker") is None, reason="there is no docker command")
def test_compose_resolves_the_documented_command_from_the_documented_env_file(tmp_path: Path) -> None:
    (tmp_path / "deploy").mkdir()
    shutil.copy(ROOT / "deploy" / "worker.yml", tmp_path / "deploy")
    variables = documented_variables()
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
    environment = compose_config(tmp_path, {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(tmp_path)})["services"][
        "worker"
    ]["environment"]
    assert environment["TAPELINE_DATABASE_URL"] == variables["TAPELINE_DATABASE_URL"]
    assert environment["TAPELINE_BROKER_URL"] == variables["TAPELINE_BROKER_URL"]
