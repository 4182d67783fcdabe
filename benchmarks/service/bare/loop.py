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
from service.pictures import grids
from service.runtime.settings import Settings
from service.spec.schema import Spec
from service.spec.strict_json import canonical
from service.spec.validation import resolve
from service.storage.artifacts import MEDIA_TYPES, ArtifactFolder, ArtifactKind, StoredFile
from workers.training import build


def main() -> None:
    """Print how many seconds it takes, once everything is imported, or the peak of its resident memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("spec")
    parser.add_argument("--jobs", type=int, default=0, help="with files and rows, in forked children; 0: the loop")
    parser.add_argument("--children", type=int, default=1)
    parser.add_argument("--warm", action="store_true", help="each child trains a job before the clock starts")
    parser.add_argument("--memory", action="store_true", help="print the peak of the loop's memory in megabytes")
    chosen = parser.parse_args()
    sent = json.loads(chosen.spec)
    if chosen.memory:
        _loop(resolve(sent))
        print(_peak_mb())
        return
    print(_runner(sent, chosen.jobs, chosen.children, warm=chosen.warm) if chosen.jobs else _loop(resolve(sent)))


def _loop(spec: Spec) -> float:
    began = time.perf_counter()
    _, trainer = _prepared(spec)
    for _ in trainer.run():
        pass
    return time.perf_counter() - began


def _peak_mb() -> float:
    # Of this program: the maximum of getrusage would include that of the process that started it.
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def _prepared(spec: Spec) -> tuple[Dataset, ClassifierTrainer]:
    root = Path(os.environ["TAPELINE_DATA"])
    dataset = cache.load(spec.dataset.name, root, cache_root=root / ".cache")
    trainer = build.trainer(spec, dataset)
    assert isinstance(trainer, ClassifierTrainer)
    return dataset, trainer


def _runner(sent: dict[str, Any], jobs: int, children: int, *, warm: bool) -> float:
    """Children take one byte for each job from a pipe, until it is empty."""
    take, give = os.pipe()
    started, tell = os.pipe()
    pids = []
    for _ in range(children):
        pid = os.fork()
        if pid == 0:
            os.close(give)
            runner = _Runner(sent)
            if warm:
                runner.train()
            os.write(tell, b".")
            while os.read(take, 1):
                runner.train()
            os._exit(0)
        pids.append(pid)
    for _ in pids:
        assert os.read(started, 1) == b"."
    began = time.perf_counter()
    os.write(give, b"." * jobs)
    os.close(give)
    for pid in pids:
        assert os.waitpid(pid, 0)[1] == 0
    return time.perf_counter() - began


class _Runner:
    """Trains one job after the other: three transactions for the beginning, an epoch and the end."""

    def __init__(self, sent: dict[str, Any]) -> None:
        settings = Settings.from_env(os.environ, cores=1)
        self._spec = resolve(sent)
        self._document = self._spec.model_dump(mode="json")
        self._rows = Rows(settings, job_values(sent))
        self._store = ArtifactFolder(settings.artifacts)

    def train(self) -> None:
        job_id, now = f"job_{ULID()}", _now()
        events = [{"status": status, "attempt": 1, "lease": 1, "epoch": 0} for status in ("queued", "running")]
        rows = [("events", (job_id, seq, "status", now, canonical(data))) for seq, data in enumerate(events, 1)]
        self._rows.write([self._rows.new_job(job_id, now), *rows], id=job_id, status="running", lease=1, last_seq=2)
        dataset, trainer = _prepared(self._spec)
        began, seq = time.monotonic(), 2
        digests = []
        for report in trainer.run():
            if isinstance(report, EpochDone):
                files, digest = self._files(job_id, report, trainer, dataset)
                self._commit_epoch(job_id, seq, report, files, digest, time.monotonic() - began)
                digests.append([report.epoch, report.metrics, digest])
                began, seq = time.monotonic(), seq + 1 + len(files)
        state = trainer.state_dict()
        digests.append([hashlib.sha256(state.tensors[name].tobytes()).hexdigest() for name in sorted(state.tensors)])
        result = hashlib.sha256(canonical(digests).encode()).hexdigest()
        now = _now()
        ended = canonical({"status": "succeeded", "error": None, "result_digest": result})
        rows = [("events", (job_id, seq + 1, "status", now, ended)), ("events", (job_id, seq + 2, "end", now, ended))]
        self._rows.write(rows, id=job_id, status="succeeded", result_digest=result, finished_ms=now, last_seq=seq + 2)

    def _files(
        self, job_id: str, report: EpochDone, trainer: ClassifierTrainer, dataset: Dataset
    ) -> tuple[list[StoredFile], str]:
        state = dataclasses.replace(trainer.state_dict(), spec=self._document)
        shown = trainer.samples(self._spec.samples.count)
        names = dataset.info.class_names
        picture = grids.prediction_grid(
            shown.images, shown.labels, shown.predictions, shown.confidences, class_names=names
        )
        digest = hashlib.sha256(np.ascontiguousarray(shown.confidences).tobytes()).hexdigest()
        contents = {ArtifactKind.CHECKPOINT: checkpoint.dumps(state), ArtifactKind.SAMPLE: picture}
        return self._store.write_all(job_id, report.epoch, 1, contents), digest

    def _commit_epoch(
        self, job_id: str, seq: int, report: EpochDone, files: list[StoredFile], digest: str, seconds: float
    ) -> None:
        now, metrics = _now(), canonical(dict(report.metrics))
        confusion = canonical(report.confusion.tolist()) if report.confusion is not None else None
        told = canonical({"epoch": report.epoch, "values": dict(report.metrics), "seconds": seconds})
        rows: list[tuple[str, tuple[Any, ...]]] = [
            ("epochs", (job_id, report.epoch, report.step, metrics, confusion, digest, seconds, 1, now)),
            ("events", (job_id, seq + 1, "metrics", now, told)),
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
