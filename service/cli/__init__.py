"""The ``tapeline`` command.

A command's module is imported when the command runs: ``--help`` and shell completion need none of them.
"""

from __future__ import annotations

import click

from service.cli.errors import Commands
from service.cli.target import service_options

_EPILOG = "A JOB is an id, a name (the newest job that has it), or a part of either that no other job has."


@click.group(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}, epilog=_EPILOG
)
@service_options
@click.version_option(package_name="tapeline", message="%(version)s")
def main() -> None:
    """Train neural networks as jobs."""


for _module, _commands in {
    "up": {"up": "Run page, API and workers on this machine until Ctrl-C."},
    "demo": {"demo": "Train a classifier and a GAN on handwritten digits; the results are in demo/."},
    "training": {
        "train": "Submit a job from a spec.",
        "watch": "Follow a job until it has ended.",
        "fork": "Submit a job that continues from a checkpoint of another one.",
        "reproduce": "Train a job that succeeded once more, and compare every bit.",
    },
    "jobs": {
        "jobs": "List jobs, the newest first.",
        "open": "Open the page of a job in the browser.",
        "download": "Download a job's files: checkpoints, curves, samples.",
    },
    "showing": {"show": "Show a job: state, metrics, settings, lineage, files."},
    "comparing": {
        "metrics": "Show a job's metrics, epoch by epoch.",
        "compare": "Show jobs side by side: settings that differ, and metrics.",
    },
    "inference": {
        "predict": "Classify images with a trained classifier.",
        "generate": "Generate images with a trained GAN.",
    },
    "actions": {
        "cancel": "Cancel a job: a waiting one now, a running one between two batches.",
        "pause": "Pause a running job between two batches; its last checkpoint stays.",
        "resume": "Continue a paused job from its last checkpoint.",
        "retry": "Continue a failed job from its last checkpoint.",
        "star": "Mark a job with a star.",
        "note": "Write a note on a job.",
        "delete": "Delete a finished job with all its files.",
    },
    "datasets": {
        "datasets": "List the datasets that a spec may name.",
        "upload": "Upload a dataset.",
    },
    "keys": {"keys": "Manage API keys."},
    "audit": {"audit": "Show who changed what."},
    "upkeep": {
        "doctor": "Diagnose the service: what is wrong, what to do, and what uses the disk.",
        "gc": "Show or delete expired data.",
        "backup": "Back up all rows and files.",
        "restore": "Restore a backup into an empty service.",
    },
}.items():
    for _name, _help in _commands.items():
        main.add_later(_name, f"service.cli.{_module}", _help)
