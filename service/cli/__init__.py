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


for _name, (_module, _help) in {
    "up": ("up", "Run the web page, API and workers on this machine until Ctrl-C."),
    "demo": ("demo", "Train a classifier and a GAN on handwritten digits; write the results to demo/."),
    "train": ("training", "Submit a job: train on a folder, a table, a dataset or a spec."),
    "watch": ("training", "Follow a job until it ends."),
    "fork": ("training", "Submit a job that continues from a checkpoint of another job."),
    "reproduce": ("training", "Train a succeeded job again and compare the results bit for bit."),
    "jobs": ("jobs", "List jobs, newest first."),
    "open": ("jobs", "Open the page of a job in the browser."),
    "download": ("jobs", "Download a job's files: checkpoints, curves, samples."),
    "workers": ("jobs", "List the workers, with your running jobs."),
    "show": ("showing", "Show a job: state, metrics, settings, lineage, files."),
    "metrics": ("comparing", "Show a job's metrics, epoch by epoch."),
    "compare": ("comparing", "Show jobs side by side: metrics, and settings that differ."),
    "mistakes": ("comparing", "Show what a classifier gets wrong, most confident first."),
    "confusion": ("comparing", "Show the scores of each class, and what it is confused with."),
    "importance": ("comparing", "Show which columns of a table a classifier uses."),
    "sweep": ("sweeps", "Start a sweep: many jobs as one experiment."),
    "sweeps": ("sweeps", "List sweeps, or show, pause, resume, cancel or delete one."),
    "why": ("comparing", "Say why two jobs have different results, down to the batch and tensor."),
    "bisect": ("comparing", "Find the epoch from which a metric is too low or too high."),
    "predict": ("inference", "Classify images with a trained classifier."),
    "generate": ("inference", "Generate images with a trained GAN."),
    "export": (
        "inference",
        "Export a trained model to another program: ONNX, PyTorch, TensorBoard, Hugging Face or MLflow.",
    ),
    "cancel": ("jobs", "Cancel a job. A running job stops after the current batch."),
    "pause": ("jobs", "Pause a running job after the current batch; it can resume from its last checkpoint."),
    "resume": ("jobs", "Continue a paused job from its last checkpoint."),
    "retry": ("jobs", "Continue a failed job from its last checkpoint."),
    "star": ("jobs", "Star a job."),
    "note": ("jobs", "Set or show the note of a job."),
    "delete": ("jobs", "Delete an ended job with all its files."),
    "datasets": ("datasets", "List the available datasets, or show or delete one."),
    "upload": ("datasets", "Upload a dataset."),
    "keys": ("access", "Manage API keys."),
    "audit": ("access", "Show the audit log."),
    "doctor": ("maintenance", "Diagnose the service: problems, remedies and disk usage."),
    "gc": ("maintenance", "Show or delete expired data."),
    "backup": ("maintenance", "Back up all rows and files."),
    "restore": ("maintenance", "Restore a backup into an empty service."),
}.items():
    main.add_lazily(_name, f"service.cli.commands.{_module}", _help)
