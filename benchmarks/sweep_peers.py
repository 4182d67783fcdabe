"""``python -m benchmarks.sweep_peers``: a sweep of small trials, by this service, by Ray Tune and by Optuna.

All contestants train the same network with the engine of this project, on one BLAS thread, at random settings of the
same space, and report the metrics of each epoch. Only this service also stores checkpoints and events, so that a killed
trial goes on; Ray Tune and Optuna's SQLite study keep the metrics, and Optuna in one process keeps nothing.
Ray and Optuna are measured if they are installed.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.service.service_under_test import ServiceLauncher
from benchmarks.tables import RESULTS

UNITS: Final = (8, 16, 32)
RATES: Final = (0.001, 0.3)
CLASSES: Final = {"iris": 3, "breast-cancer": 2}
SLOTS: Final = 2
_SAMPLE_S: Final = 0.2


def document(dataset: str, learning_rate: float = 0.01, units: int = 16) -> dict[str, Any]:
    """The spec of a trial."""
    layers = [{"units": units, "activation": "relu"}, {"units": CLASSES[dataset], "activation": "softmax"}]
    return {
        "kind": "classifier",
        "preset": "table",
        "dataset": {"name": dataset},
        "epochs": 20,
        "batch_size": 16,
        "optimizer": {"learning_rate": learning_rate},
        "layers": layers,
    }


class Trials:
    """Trains trials in this process; the data are loaded once."""

    def __init__(self, dataset: str) -> None:
        from service.datasets import cache
        from service.datasets.formats.array_folders import ArrayCache
        from service.datasets.tables.preprocessing import Preprocessing

        self._name = dataset
        with tempfile.TemporaryDirectory(prefix="tapeline-peers-") as folder:
            self._data = cache.load(dataset, Path(folder), cache=ArrayCache(Path(folder), 2**30))
        train = self._data.train
        self._preprocessing = Preprocessing.of(self._data.info, train.inputs, train.labels)

    def train(self, learning_rate: float, units: int, report: Callable[[int, Mapping[str, float]], object]) -> float:
        """Train one trial, and report each epoch; returns the last accuracy."""
        from engine import EpochDone
        from service.spec.validation import resolve
        from workers.training import build

        spec = resolve(document(self._name, learning_rate, units))
        accuracy = 0.0
        for done in build.trainer(spec, self._data, self._preprocessing).run():
            if isinstance(done, EpochDone):
                accuracy = float(done.metrics["val_accuracy"])
                report(done.epoch, done.metrics)
        return accuracy


@functools.cache
def kept_trials(dataset: str) -> Trials:
    """Those of this process."""
    return Trials(dataset)


def tapeline(kind: str, dataset: str, trials: int) -> None:
    """The service, with two slots: from the POST of the sweep to its end."""
    with tempfile.TemporaryDirectory(prefix="tapeline-peers-") as folder:
        launcher = ServiceLauncher(Path(folder), None)
        try:
            with launcher.open(kind) as service:
                service.serve()
                service.work(SLOTS)
                sweep = {
                    "base": document(dataset),
                    "space": {"optimizer.learning_rate": {"log": RATES}, "layers.0.units": {"choice": UNITS}},
                    "search": {"name": "random", "trials": trials, "seed": 1},
                }
                _mark()
                url = service.http.post("/sweeps", json=sweep).raise_for_status().json()["urls"]["self"]
                while (state := service.http.get(url).raise_for_status().json())["status"] == "running":
                    time.sleep(_SAMPLE_S)
                _mark()
                assert state["trials"]["succeeded"] == trials
        finally:
            launcher.close()


def ray_tune(dataset: str, trials: int) -> None:
    """Ray Tune with two CPUs, whose actors are used again."""
    import ray
    from ray import tune

    def objective(settings: dict[str, Any]) -> None:
        module = importlib.import_module("benchmarks.sweep_peers")  # in an actor, __main__ is another module

        trials = module.kept_trials(dataset)
        trials.train(settings["rate"], settings["units"], lambda epoch, metrics: tune.report(dict(metrics)))

    with tempfile.TemporaryDirectory(prefix="tapeline-peers-") as folder:
        ray.init(num_cpus=SLOTS, include_dashboard=False, logging_level="error", log_to_driver=False)
        tuner = tune.Tuner(
            tune.with_resources(objective, {"cpu": 1}),
            param_space={"rate": tune.loguniform(*RATES), "units": tune.choice(UNITS)},
            tune_config=tune.TuneConfig(num_samples=trials, reuse_actors=True, metric="val_accuracy", mode="max"),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        )
        _mark()
        results = tuner.fit()
        _mark()
        assert len(results) == trials
        assert not results.errors
        ray.shutdown()


def optuna_process(storage: str | None, dataset: str, trials: int) -> None:
    """Some trials of a study, in this process."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    runner = Trials(dataset)
    sampler = optuna.samplers.RandomSampler(seed=os.getpid())
    study = optuna.create_study(
        study_name="peers", storage=storage, sampler=sampler, direction="maximize", load_if_exists=True
    )

    def objective(trial: Any) -> float:
        rate = trial.suggest_float("rate", *RATES, log=True)
        units = trial.suggest_categorical("units", UNITS)
        return runner.train(rate, units, lambda epoch, metrics: trial.report(metrics["val_accuracy"], epoch))

    runner.train(0.01, 16, lambda epoch, metrics: None)  # loads what the first trial would load
    if storage is None:
        _mark()
    else:
        print("ready", flush=True)
        sys.stdin.readline()
    study.optimize(objective, n_trials=trials)
    if storage is None:
        _mark()
        assert len(study.trials) == trials


def optuna_stored(dataset: str, trials: int) -> None:
    """Two processes that share a study in SQLite."""
    import optuna

    with tempfile.TemporaryDirectory(prefix="tapeline-peers-") as folder:
        storage = f"sqlite:///{folder}/study.db"
        study = optuna.create_study(study_name="peers", storage=storage, direction="maximize")
        each = [trials // SLOTS + (number < trials % SLOTS) for number in range(SLOTS)]
        command = [sys.executable, "-m", "benchmarks.sweep_peers", "--dataset", dataset, "--storage", storage]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        processes = [subprocess.Popen([*command, "--trials", str(count)], **pipes) for count in each]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        _mark()
        for process in processes:
            process.communicate("\n")
            assert process.returncode == 0
        _mark()
        assert len(study.trials) == trials


CONTESTANTS: Final[dict[str, tuple[str | None, Callable[[str, int], None]]]] = {
    "Tapeline, SQLite": (None, lambda dataset, trials: tapeline("sqlite", dataset, trials)),
    "Tapeline, PostgreSQL": (None, lambda dataset, trials: tapeline("postgresql", dataset, trials)),
    "Ray Tune": ("ray", ray_tune),
    "Optuna, SQLite, two processes": ("optuna", optuna_stored),
    "Optuna, one process, no storage": ("optuna", lambda dataset, trials: optuna_process(None, dataset, trials)),
}
"""Each with the library that it needs."""


def _mark() -> None:
    """Begin or end the measurement."""
    print("mark", flush=True)


def measure(name: str, dataset: str, trials: int) -> dict[str, float]:
    """Run a contestant in a process of its own: trials a second, CPU seconds per trial, and the peak of the memory of
    all its processes, without what they share twice."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.sweep_peers", "--dataset", dataset]
    command += ["--trials", str(trials), "--run", name]
    environ = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    marks: list[float] = []
    used: dict[int, float] = {}
    peak = 0
    os.set_blocking(process.stdout.fileno(), False)
    before: dict[int, float] = {}
    while process.poll() is None:
        for line in process.stdout:
            if line == "mark\n":
                marks.append(time.monotonic())
                if len(marks) == 1:
                    before = dict(used)
        if len(marks) < 2:
            processes = _processes(process.pid)
            used |= {item.pid: sum(item.cpu_times()[:2]) for item in processes if item.is_running()}
            peak = max(peak, sum(map(_proportional_bytes, processes)))
        time.sleep(_SAMPLE_S)
    assert process.returncode == 0, name
    cpu = sum(seconds - before.get(pid, 0.0) for pid, seconds in used.items())
    return {
        "trials_per_s": trials / (marks[1] - marks[0]),
        "cpu_s_per_trial": cpu / trials,
        "memory_mb": peak / 1e6,
    }


def _processes(pid: int) -> list[psutil.Process]:
    """A process, its descendants, and the servers, which leave the tree."""
    try:
        found = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
    ids = {process.pid for process in found}
    servers = ("postgres", "raylet", "gcs_server")
    return found + [
        item for item in psutil.process_iter(["name"]) if item.info["name"] in servers and item.pid not in ids
    ]


def _proportional_bytes(process: psutil.Process) -> int:
    try:
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def _table(rows: list[dict[str, Any]]) -> str:
    lines = ["| dataset | | trials a second | CPU seconds per trial | memory, MB |", "|---|---|--:|--:|--:|"]
    for row in rows:
        rate, cpu, memory = (_spread(row[key]) for key in ("trials_per_s", "cpu_s_per_trial", "memory_mb"))
        lines.append(f"| {row['dataset']} | {row['name']} | {rate} | {cpu} | {memory} |")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    low, middle, high = (f"{value:.3g}" for value in (min(values), statistics.median(values), max(values)))
    return middle if len(values) == 1 else f"{middle} ({low} to {high})"


def main() -> None:
    """Measure all contestants in turn, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dataset", choices=list(CLASSES))
    parser.add_argument("--run", choices=list(CONTESTANTS), help="one contestant, in this process")
    parser.add_argument("--storage", help="a part of a study of Optuna, in this process")
    options = parser.parse_args()
    if options.storage is not None:
        optuna_process(options.storage, options.dataset, options.trials)
        return
    if options.run is not None:
        CONTESTANTS[options.run][1](options.dataset, options.trials)
        return
    names = [name for name, (library, _) in CONTESTANTS.items() if library is None or find_spec(library) is not None]
    rows = []
    for dataset in [options.dataset] if options.dataset else list(CLASSES):
        figures: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        for _ in range(options.rounds):
            for name in names:
                figures[name].append(measure(name, dataset, options.trials))
                print(dataset, name, figures[name][-1], file=sys.stderr, flush=True)
        for name, found in figures.items():
            rows.append({"dataset": dataset, "name": name} | {key: [run[key] for run in found] for key in found[0]})
    RESULTS.joinpath("sweep_peers.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(_table(rows))


if __name__ == "__main__":
    main()
