"""``python -m benchmarks.sweeps``: halving against the full grid, and TPE against random search, on handwritten digits.

The decisions are those of the product (``service.sweeps``), on trainings of its engine. A promoted job has the bits of
one that was never paused, so each setting is trained once, to its end, and the value at a rung is that of its epoch. A
finished training is stored at once, so the program can be interrupted and restarted.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import random
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.tables import RESULTS
from service.sweeps.schema import Range
from service.sweeps.search import space, tpe
from service.sweeps.search.proposals import STARTUP
from service.sweeps.trial_scheduler import Outcome, Proposed, State, SweepPlan, TrialScheduler

ROOT: Final = Path(__file__).parents[1]
DOCUMENT: Final = ROOT / "docs" / "sweeps.md"
BEGIN, END = (f"<!-- make results ONLY=sweeps: {end} -->" for end in ("begin", "end"))
DATA: Final = "mnist"
BASE: Final[dict[str, Any]] = {
    "kind": "classifier",
    "dataset": {"name": DATA},
    "batch_size": 100,
    "optimizer": {"name": "sgd", "learning_rate": 0.1, "momentum": 0.5, "nesterov": False},
    "schedule": {"name": "constant"},
    "layers": [{"units": 32, "activation": "relu"}, {"units": 10, "activation": "softmax"}],
}
GRID_EPOCHS: Final = 9
GRID: Final = {
    "/optimizer/learning_rate": Range(choice=[0.003, 0.01, 0.03, 0.1, 0.3, 1.0]),
    "/optimizer/momentum": Range(choice=[0.0, 0.5, 0.9]),
    "/layers/0/units": Range(choice=[16, 32, 64]),
}
FACTOR: Final = 3
GRID_SEEDS: Final = 5
SEARCH_EPOCHS: Final = 2
SEARCH_SPACE: Final = {
    "/optimizer/learning_rate": Range(log=[0.0001, 3.0]),
    "/optimizer/momentum": Range(floats=[0.0, 0.99]),
    "/batch_size": Range(integers=[20, 400], step=20),
    "/layers/0/units": Range(integers=[8, 64], step=8),
}
SEARCH_TRIALS: Final = 30
SEARCH_SEEDS: Final = 10
PARALLEL: Final = 4


class Trainings:
    """The validation accuracies by epoch of all trainings so far, stored in a file."""

    def __init__(self, path: Path, data: Path, work: Path) -> None:
        self.path, self.data, self.work = path, data, work
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.results: dict[str, list[float | None]] = {}
        for line in lines:
            row = json.loads(line)
            self.results[_key(row["settings"], row["seed"], row["epochs"])] = row["val_accuracy"]

    def values(self, settings: Mapping[str, Any], seed: int, epochs: int) -> list[float | None]:
        """The validation accuracy after each epoch; ``None`` after a divergence."""
        key = _key(settings, seed, epochs)
        if key not in self.results:
            accuracies = self.results[key] = self._train(settings, seed, epochs)
            row = {"settings": settings, "seed": seed, "epochs": epochs, "val_accuracy": accuracies}
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)
        return self.results[key]

    @functools.cached_property
    def _digits(self) -> Any:
        from service.datasets import cache
        from service.datasets.formats.array_folders import ArrayCache

        return cache.load(DATA, self.data, cache=ArrayCache(self.work))

    def _train(self, settings: Mapping[str, Any], seed: int, epochs: int) -> list[float | None]:
        from engine import DivergedError, EpochDone
        from service.spec.validation import resolve
        from workers.training import build

        document = space.with_settings(BASE, settings) | {"seed": seed, "epochs": epochs}
        trainer = build.trainer(resolve(document), self._digits)
        values: list[float | None] = []
        try:
            for report in trainer.run():
                if isinstance(report, EpochDone):
                    values += [round(float(report.metrics["val_accuracy"]), 6)]
        except DivergedError:
            pass
        return values + [None] * (epochs - len(values))


class Experiment:
    """A sweep in this process: the ``SweepBackend`` of a scheduler, whose trials are trained on demand."""

    def __init__(
        self, plan: SweepPlan, search: str, seed: int, trainings: Trainings, *, is_shuffled: bool = False
    ) -> None:
        self.plan, self.search, self.seed, self.trainings = plan, search, seed, trainings
        self.order = list(range(plan.trials))
        if is_shuffled:
            random.Random(seed).shuffle(self.order)
        self.space = GRID if search == "grid" else SEARCH_SPACE
        self.settings: list[dict[str, Any]] = []
        self.finished: dict[int, float | None] = {}
        self.best: list[float] = []
        """The best value so far, after each result."""
        self.winner: Sequence[Any] | None = None
        self.state = State.of(None, plan)
        assert TrialScheduler(plan, self.state, self).advance(), "the sweep has not ended"

    def propose(self, trial: int, max_epochs: int | None = None) -> Proposed:
        if self.search == "grid":
            settings = space.grid_settings(self.space, self.order[trial])
        elif self.search == "random" or trial < STARTUP:
            settings = space.random_settings(self.space, self.seed, trial)
        else:
            history = [
                tpe.Past(past, self.finished.get(number), number in self.finished)
                for number, past in enumerate(self.settings)
            ]
            settings = tpe.suggest(self.space, history, goal="maximize", seed=self.seed)
        self.settings.append(settings)
        return Proposed(self.plan.rungs[-1])

    def promote(self, trial: int, rung: int) -> None:
        """Does nothing: a promoted trial has already been trained."""

    def outcome(self, trial: int, rung: int) -> Outcome:
        values = self.trainings.values(self.settings[trial], self.seed, self.plan.rungs[-1])
        return Outcome(values[self.plan.rungs[rung] - 1])

    def record(self, trial: int, rung: int, outcome: Outcome, best: Sequence[Any] | None) -> None:
        self.finished[trial] = outcome.value
        self.best.append(max(self.best[-1] if self.best else 0.0, outcome.value or 0.0))

    def decide(self, rung: int, promoted: Sequence[Sequence[Any]], stopped: Sequence[Sequence[Any]]) -> None:
        """Does nothing: decisions are not stored."""

    def exhausted(self, reason: str) -> None:
        """Does nothing: there is no budget."""

    def conclude(self, winner: Sequence[Any] | None, rung: int, ended_by: str | None) -> None:
        self.winner = winner


def plan_of(trials: int, rungs: Sequence[int], *, asynchronous: bool = False) -> SweepPlan:
    """A plan with one training seed, and without limits."""
    return SweepPlan(
        trials=trials, seeds=1, rungs=rungs, factor=FACTOR if len(rungs) > 1 else 1, asynchronous=asynchronous,
        parallel=PARALLEL, maximize=True, max_failed=None, budget=None,
    )  # fmt: skip


def halving_rows(trainings: Trainings, seeds: int) -> list[dict[str, Any]]:
    """Compare each mode of halving with the full grid, for each seed."""
    trials = space.grid_size(GRID)
    assert trials is not None
    rows = []
    modes = {"synchronous": (False, False), "asynchronous": (True, False), "asynchronous, shuffled": (True, True)}
    for seed in range(seeds):
        full = Experiment(plan_of(trials, [GRID_EPOCHS]), "grid", seed, trainings)
        for mode, (is_asynchronous, is_shuffled) in modes.items():
            plan = plan_of(trials, [1, 3, GRID_EPOCHS], asynchronous=is_asynchronous)
            halved = Experiment(plan, "grid", seed, trainings, is_shuffled=is_shuffled)
            assert full.winner is not None
            assert halved.winner is not None
            rows.append(
                {
                    "seed": seed, "mode": mode, "grid": full.winner[1], "halving": halved.winner[1],
                    "same": full.settings[full.winner[0]] == halved.settings[halved.winner[0]],
                    "fraction": halved.state.spent / full.state.spent, "epochs": halved.state.spent,
                    "grid_epochs": full.state.spent,
                }
            )  # fmt: skip
    return rows


def search_rows(trainings: Trainings, seeds: int) -> list[dict[str, Any]]:
    """Compare random search and TPE with equal epochs, for each search seed."""
    rows = []
    for seed in range(seeds):
        plan = plan_of(SEARCH_TRIALS, [SEARCH_EPOCHS])
        experiments = {name: Experiment(plan, name, seed, trainings) for name in ("random", "tpe")}
        assert experiments["random"].state.spent == experiments["tpe"].state.spent
        rows.append({"seed": seed} | {name: experiment.best[-1] for name, experiment in experiments.items()})
    return rows


def tables(halving: Sequence[Mapping[str, Any]], searches: Sequence[Mapping[str, Any]]) -> str:
    """Both comparisons in Markdown."""
    lines = [
        "| seed | halving | epochs | of the grid's | winner of the grid | winner of halving | difference, points |",
        "|--:|---|--:|--:|--:|--:|--:|",
    ]
    for row in halving:
        same = "the same" if row["same"] else f"{100 * row['halving']:.2f}%"
        cells = f"{row['epochs']} | {100 * row['fraction']:.0f}% | {100 * row['grid']:.2f}% | {same}"
        lines.append(f"| {row['seed']} | {row['mode']} | {cells} | {100 * (row['halving'] - row['grid']):.2f} |")
    lines += ["", "| search seed | random | TPE | TPE better by, points |", "|--:|--:|--:|--:|"]
    for row in searches:
        gain = 100 * (row["tpe"] - row["random"])
        lines.append(f"| {row['seed']} | {100 * row['random']:.2f}% | {100 * row['tpe']:.2f}% | {gain:.2f} |")
    medians = {name: statistics.median(row[name] for row in searches) for name in ("random", "tpe")}
    gain = 100 * statistics.median(row["tpe"] - row["random"] for row in searches)
    lines.append(f"| median | {100 * medians['random']:.2f}% | {100 * medians['tpe']:.2f}% | {gain:.2f} |")
    return "\n".join(lines)


def _key(settings: Mapping[str, Any], seed: int, epochs: int) -> str:
    return json.dumps([settings, seed, epochs], sort_keys=True)


def main() -> None:
    """Train the missing settings, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=GRID_SEEDS, help="sweep seeds of the grid")
    parser.add_argument("--search-seeds", type=int, default=SEARCH_SEEDS)
    parser.add_argument(
        "--data", type=Path, help="folder of datasets (default: MNIST is downloaded to the folder --work)"
    )
    parser.add_argument("--work", type=Path, default=ROOT / ".cache" / "presets", help="unpacked data")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the trainings")
    options = parser.parse_args()
    if os.environ.get("OPENBLAS_NUM_THREADS") != "1":  # it is read when NumPy is imported
        environment = os.environ | dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")
        command = [sys.executable, "-m", "benchmarks.sweeps", *sys.argv[1:]]
        raise SystemExit(subprocess.run(command, env=environment, cwd=ROOT, check=False).returncode)
    options.work.mkdir(parents=True, exist_ok=True)
    trainings = Trainings(options.results / "sweeps.jsonl", options.data or options.work, options.work)
    body = tables(halving_rows(trainings, options.seeds), search_rows(trainings, options.search_seeds))
    text = DOCUMENT.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{body}\n\n{END}{after}", encoding="utf-8")
    print(body)


if __name__ == "__main__":
    main()
