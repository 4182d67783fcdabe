"""The ``tapeline`` command.

The module of a command is imported when the command runs, not for ``--help`` or shell completion.
"""

from __future__ import annotations

import click

from service.cli.errors import Commands
from service.cli.target import service_options

_EPILOG = "JOB is an id, a name (if several jobs have it: the newest), or a unique part of either."


@click.group(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}, epilog=_EPILOG
)
@service_options
@click.version_option(package_name="tapeline", message="%(version)s")
def main() -> None:
    """Train neural networks as jobs."""


for _module, _commands in {
    "up": {"up": "Run the web page, API and workers on this machine until Ctrl-C."},
    "demo": {"demo": "Train a classifier and a GAN on handwritten digits; write the results to demo/."},
    "training": {
        "train": "Submit a job: train on a folder, a table, a dataset or a spec.",
        "watch": "Follow a job until it ends.",
        "fork": "Submit a job that continues from a checkpoint of another job.",
        "reproduce": "Train a succeeded job again and compare the results bit for bit.",
    },
    "jobs": {
        "jobs": "List jobs, newest first.",
        "open": "Open the page of a job in the browser.",
        "download": "Download a job's files: checkpoints, curves, samples.",
        "workers": "List the workers, with your running jobs.",
    },
    "showing": {"show": "Show a job: state, metrics, settings, lineage, files."},
    "comparing": {
        "metrics": "Show a job's metrics, epoch by epoch.",
        "compare": "Show jobs side by side: metrics, and settings that differ.",
        "mistakes": "Show what a classifier gets wrong, most confident first.",
        "confusion": "Show the scores of each class, and what it is confused with.",
        "importance": "Show which columns of a table a classifier uses.",
    },
    "experiments.sweeping": {
        "sweep": "Start a sweep: many jobs as one experiment.",
        "sweeps": "List sweeps, or show, pause, resume, cancel or delete one.",
    },
    "experiments.differing": {
        "why": "Say why two jobs have different results, down to the batch and tensor.",
        "bisect": "Find the epoch from which a metric is too low or too high.",
    },
    "inference": {
        "predict": "Classify images with a trained classifier.",
        "generate": "Generate images with a trained GAN.",
        "export": "Export a trained model to another program: ONNX, PyTorch, TensorBoard, Hugging Face or MLflow.",
    },
    "actions": {
        "cancel": "Cancel a job. A running job stops after the current batch.",
        "pause": "Pause a running job after the current batch; it can resume from its last checkpoint.",
        "resume": "Continue a paused job from its last checkpoint.",
        "retry": "Continue a failed job from its last checkpoint.",
        "star": "Star a job.",
        "note": "Set or show the note of a job.",
        "delete": "Delete an ended job with all its files.",
    },
    "datasets": {
        "datasets": "List the available datasets, or show or delete one.",
        "upload": "Upload a dataset.",
    },
    "keys": {"keys": "Manage API keys."},
    "audit": {"audit": "Show the audit log."},
    "maintenance": {
        "doctor": "Diagnose the service: problems, remedies and disk usage.",
        "gc": "Show or delete expired data.",
        "backup": "Back up all rows and files.",
        "restore": "Restore a backup into an empty service.",
    },
}.items():
    for _name, _help in _commands.items():
        main.add_lazily(_name, f"service.cli.commands.{_module}", _help)
