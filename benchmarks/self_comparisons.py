"""``python -m benchmarks.self_comparisons``: how often a setting is called different from itself.

A setting is trained with many seeds. Then groups of these jobs, with no seed in common, are compared by
``GET /comparisons``. Each difference it finds is an error, so a 95% interval may be wrong in 5% of the comparisons.
"""

from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path
from typing import Any, Final

import httpx

from benchmarks.tables import RESULTS
from service.local import LocalStack
from service.runtime.settings import Settings
from tapeline import Client

ROOT: Final = Path(__file__).parents[1]
DOCUMENT: Final = ROOT / "docs" / "sweeps.md"
BEGIN, END = (f"<!-- make results ONLY=self_comparisons: {end} -->" for end in ("begin", "end"))
BASE: Final[dict[str, Any]] = {
    "kind": "classifier",
    "dataset": "iris",
    "epochs": 2,
    "layers": [{"units": 8, "activation": "relu"}, {"units": 3, "activation": "softmax"}],
}
SEEDS: Final = 600
SEEDS_PER_SWEEP: Final = 100
COMPARISONS: Final = 1000
SIZES: Final = (3, 5, 10)
METRICS: Final = ("val_loss", "val_accuracy")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="tapeline-bench-") as home:
        settings = Settings.from_env({"TAPELINE_HOME": home, "TAPELINE_PORT": "0", "TAPELINE_WORKERS": "2"}, cores=2)
        with LocalStack(settings) as stack, Client(stack.url) as client:
            jobs = _train(client)
            rows = [_compare(stack.url, jobs, metric, size) for metric in METRICS for size in SIZES]
    (RESULTS / "self_comparisons.json").write_text(json.dumps({"rows": rows}, indent=1) + "\n", encoding="utf-8")
    table = _table(rows)
    print(table)
    text = DOCUMENT.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{table}\n{END}{rest.split(END)[1]}", encoding="utf-8")


def _train(client: Client) -> list[str]:
    """The ids of jobs of one setting, each with another seed."""
    sweeps = [
        client.sweep({"base": BASE, "seeds": list(range(first, first + SEEDS_PER_SWEEP)), "reuse": "never"})
        for first in range(0, SEEDS, SEEDS_PER_SWEEP)
    ]
    return [str(row[name]) for sweep in sweeps for row in sweep.wait().trials() for name in row if "job (seed" in name]


def _compare(url: str, jobs: list[str], metric: str, size: int) -> dict[str, Any]:
    """Compare random groups of ``size`` jobs each; no job is in both."""
    rng, different = random.Random(f"{metric} {size}"), 0
    with httpx.Client(base_url=url, timeout=60) as http:
        for _ in range(COMPARISONS):
            sample = rng.sample(jobs, 2 * size)
            query = {"a": ",".join(sample[:size]), "b": ",".join(sample[size:]), "metric": metric}
            comparison = http.get("/comparisons", params=query).raise_for_status().json()
            low, high = comparison["interval"]
            different += not low <= 0 <= high
    return {"metric": metric, "seeds": size, "comparisons": COMPARISONS, "different": different}


def _table(rows: list[dict[str, Any]]) -> str:
    lines = ["| metric | seeds a side | comparisons | called different | fraction |", "|---|--:|--:|--:|--:|"]
    for row in rows:
        percentage = f"{row['different'] / row['comparisons']:.1%}"
        lines.append(
            f"| `{row['metric']}` | {row['seeds']} | {row['comparisons']} | {row['different']} | {percentage} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
