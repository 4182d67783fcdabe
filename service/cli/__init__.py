"""The ``tapeline`` command."""

from __future__ import annotations

import click

from service.cli import datasets, demo, inference, jobs, up
from service.cli.errors import Commands
from service.cli.target import service_options


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@service_options
@click.version_option(package_name="tapeline", message="%(version)s")
def main() -> None:
    """Train neural networks as jobs."""


main.add_command(up.up)
main.add_command(demo.demo)
for command in (*jobs.COMMANDS, *datasets.COMMANDS):
    main.add_command(command)
for command in inference.COMMANDS:
    main.add_command(command)
main.add_later("keys", "service.cli.keys")
main.add_later("audit", "service.cli.audit")
for name in ("doctor", "gc", "backup", "restore"):
    main.add_later(name, "service.cli.upkeep")
