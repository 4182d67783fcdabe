"""The engine's training loop alone, or with the files and rows of a job, as a user would write it without us."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from ulid import ULID

from benchmarks.service.bare.rows import Rows, job_values
from engine import ClassifierTrainer, EpochDone, checkpoint
from service.datasets import cache
from service.datasets.cache import Dataset
from service.datasets.formats.array_folders import ArrayCache
from service.pictures import grids
from service.runtime.settings import Settings
from service.spec.schema import Spec
from service.spec.strict_json import canonical
from service.spec.validation import resolve
from service.storage.artifacts import MEDIA_TYPES, ArtifactKind, StoredFile
from service.storage.stores import ArtifactFolder
from workers.training import build


def main() -> None:
    """Print how many seconds the training takes, without imports, or the peak of its resident memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("spec")
    parser.add_argument("--jobs", type=int, default=0, help="with files and rows, in forked children; 0: the loop")
    parser.add_argument("--children", type=int, default=1)
    parser.add_argument("--warm", action="store_true", help="each child trains a job before the clock starts")
    parser.add_argument("--memory", action="store_true", help="print the peak of the loop's memory in megabytes")
    options = parser.parse_args()
    document = json.loads(options.spec)
    if options.memory:
        _loop(resolve(document))
        print(_peak_mb())
        return
    print(
        _time_children(document, options.jobs, options.children, warm=options.warm)
        if options.jobs
        else _loop(resolve(document))
    )


def _loop(spec: Spec) -> float:
    started_at = time.perf_counter()
    _, trainer = _load_trainer(spec)
    for _ in trainer.run():
        pass
    return time.perf_counter() - started_at


def _peak_mb() -> float:
    # The peak of this program: the maximum of getrusage would include that of the process that started it.
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def _load_trainer(spec: Spec) -> tuple[Dataset, ClassifierTrainer]:
    root = Path(os.environ["TAPELINE_DATA"])
    dataset = cache.load(spec.dataset.name, root, cache=ArrayCache(root / ".cache"))
    trainer = build.trainer(spec, dataset)
    assert isinstance(trainer, ClassifierTrainer)
    return dataset, trainer


def _time_children(document: dict[str, Any], jobs: int, children: int, *, warm: bool) -> float:
    """The time of ``jobs`` jobs in forked children, which read one byte per job from a pipe until it is empty."""
    job_reader, job_writer = os.pipe()
    ready_reader, ready_writer = os.pipe()
    pids = []
    for _ in range(children):
        pid = os.fork()
        if pid == 0:
            os.close(job_writer)
            runner = _Runner(document)
            if warm:
                runner.train()
            os.write(ready_writer, b".")
            while os.read(job_reader, 1):
                runner.train()
            os._exit(0)
        pids.append(pid)
    for _ in pids:
        assert os.read(ready_reader, 1) == b"."
    started_at = time.perf_counter()
    os.write(job_writer, b"." * jobs)
    os.close(job_writer)
    for pid in pids:
        assert os.waitpid(pid, 0)[1] == 0
    return time.perf_counter() - started_at


class _Runner:
    """Trains one job after the other: three transactions for the beginning, an epoch and the end."""

    def __init__(self, document: dict[str, Any]) -> None:
        settings = Settings.from_env(os.environ, cores=1)
        self._spec = resolve(document)
        self._document = self._spec.model_dump(mode="json")
        self._rows = Rows(settings, job_values(document))
        self._store = ArtifactFolder(settings.artifacts)

    def train(self) -> None:
        job_id, now = f"job_{ULID()}", _now()
        events = [{"status": status, "attempt": 1, "lease": 1, "epoch": 0} for status in ("queued", "running")]
        rows = [("events", (job_id, seq, "status", now, canonical(data))) for seq, data in enumerate(events, 1)]
        self._rows.write([self._rows.new_job(job_id, now), *rows], id=job_id, status="running", lease=1, last_seq=2)
        dataset, trainer = _load_trainer(self._spec)
        epoch_started_at, seq = time.monotonic(), 2
        digests = []
        for report in trainer.run():
            if isinstance(report, EpochDone):
                files, digest = self._files(job_id, report, trainer, dataset)
                self._commit_epoch(job_id, seq, report, files, digest, time.monotonic() - epoch_started_at)
                digests.append([report.epoch, report.metrics, digest])
                epoch_started_at, seq = time.monotonic(), seq + 1 + len(files)
        state = trainer.state_dict()
        digests.append([hashlib.sha256(state.tensors[name].tobytes()).hexdigest() for name in sorted(state.tensors)])
        result = hashlib.sha256(canonical(digests).encode()).hexdigest()
        now = _now()
        end_event = canonical({"status": "succeeded", "error": None, "result_digest": result})
        rows = [
            ("events", (job_id, seq + 1, "status", now, end_event)),
            ("events", (job_id, seq + 2, "end", now, end_event)),
        ]
        self._rows.write(rows, id=job_id, status="succeeded", result_digest=result, finished_ms=now, last_seq=seq + 2)

    def _files(
        self, job_id: str, report: EpochDone, trainer: ClassifierTrainer, dataset: Dataset
    ) -> tuple[list[StoredFile], str]:
        state = dataclasses.replace(trainer.state_dict(), spec=self._document)
        samples = trainer.samples(self._spec.samples.count)
        class_names = dataset.info.class_names
        picture = grids.prediction_grid(
            samples.images, samples.labels, samples.predictions, samples.confidences, class_names=class_names
        )
        digest = hashlib.sha256(np.ascontiguousarray(samples.confidences).tobytes()).hexdigest()
        contents = {ArtifactKind.CHECKPOINT: checkpoint.dumps(state), ArtifactKind.SAMPLE: picture}
        return self._store.write_all(job_id, report.epoch, 1, contents), digest

    def _commit_epoch(
        self, job_id: str, seq: int, report: EpochDone, files: list[StoredFile], digest: str, seconds: float
    ) -> None:
        now, metrics = _now(), canonical(dict(report.metrics))
        confusion = canonical(report.confusion.tolist()) if report.confusion is not None else None
        metrics_event = canonical({"epoch": report.epoch, "values": dict(report.metrics), "seconds": seconds})
        rows: list[tuple[str, tuple[Any, ...]]] = [
            ("epochs", (job_id, report.epoch, report.step, metrics, confusion, digest, seconds, 1, now)),
            ("events", (job_id, seq + 1, "metrics", now, metrics_event)),
        ]
        for number, file in enumerate(files, seq + 2):
            row = (f"art_{ULID()}", job_id, file.kind, file.epoch, 1, file.name, file.path, MEDIA_TYPES[file.kind])
            rows.append(("artifacts", (*row, file.size_bytes, file.sha256, now)))
            rows.append(("events", (job_id, number, file.kind, now, canonical({"sha256": file.sha256}))))
        last = seq + 1 + len(files)
        self._rows.write(rows, id=job_id, epoch=report.epoch, step=report.step, metrics=metrics, last_seq=last)


def _now() -> int:
    return time.time_ns() // 1_000_000


if __name__ == "__main__":
    sys.exit(main())
