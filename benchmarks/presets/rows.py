"""The rows of the table: presets, datasets and seeds."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.datasets.builtins import BUILT_IN
from service.spec.schema import Spec
from service.spec.validation import resolve, spec_hash

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
"""Specs that are measured like presets, by the names of their files."""
PLAN: tuple[tuple[str, str, str, int], ...] = (  # kind, preset, dataset, number of seeds; fast ones first
    ("classifier", "fast", "mnist", 5),
    ("classifier", "fast", "fashion-mnist", 5),
    ("classifier", "digits", "mnist", 10),
    ("classifier", "digits", "fashion-mnist", 5),
    ("gan", "stable", "mnist-10k", 5),
    ("gan", "classic", "mnist-10k", 3),
    ("classifier", "best", "mnist", 5),
    ("classifier", "best", "fashion-mnist", 5),
    ("gan", "best", "mnist-10k", 3),
    ("classifier", "conv", "mnist", 5),
    ("classifier", "conv", "fashion-mnist", 5),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One training of the table."""

    kind: str
    preset: str
    dataset: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.kind} {self.preset}, {self.dataset}, seed {self.seed}"

    @property
    def key(self) -> dict[str, Any]:
        """The fields that identify a row in the results."""
        return {"kind": self.kind, "preset": self.preset, "dataset": self.dataset, "seed": self.seed}

    def spec(self) -> Spec:
        changes = {"dataset": {"name": self.dataset}, "seed": self.seed}
        if (example := EXAMPLES / f"{self.preset}.json").exists():
            return resolve(json.loads(example.read_text(encoding="utf-8")) | changes)
        return resolve({"kind": self.kind, "preset": self.preset} | changes)

    def samples(self, work: Path) -> Path:
        """The path of a GAN's samples for the independent reference classifier."""
        return work / "samples" / f"{self.preset}-{self.dataset}-{self.seed}.npy"

    def fingerprint(self) -> str:
        """A hash that changes if the row must be trained again, or if the reference classifier changes."""
        return spec_hash(self.spec()) + (f" {reference()}" if self.kind == "gan" else "")


@functools.cache
def reference() -> str:
    """SHA-256 of the bundled reference classifier."""
    path = BUILT_IN["mnist-10k"].reference_classifier
    assert path is not None
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def planned(requested_words: Iterable[str] = (), max_seeds: int | None = None) -> Iterator[Row]:
    """The rows of the table that match all ``requested_words``."""
    words = set(requested_words)
    for kind, preset, dataset, seeds in PLAN:
        for seed in range(min(seeds, max_seeds or seeds)):
            row = Row(kind, preset, dataset, seed)
            if words <= {str(value) for value in row.key.values()}:
                yield row
