"""Which presets are trained on what, and with which seeds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from service.contract.spec import Spec
from service.contract.validation import resolve, spec_hash

PLAN: tuple[tuple[str, str, str, int], ...] = (  # kind, preset, data set, seeds from 0 on; quick ones first
    ("classifier", "fast", "mnist", 5),
    ("classifier", "fast", "fashion-mnist", 5),
    ("gan", "stable", "mnist-10k", 10),
    ("gan", "seed", "mnist-10k", 3),
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
    def place(self) -> dict[str, Any]:
        """What tells a finished row from the others in the results."""
        return {"kind": self.kind, "preset": self.preset, "dataset": self.dataset, "seed": self.seed}

    def spec(self) -> Spec:
        return resolve({"kind": self.kind, "preset": self.preset, "dataset": {"name": self.dataset}, "seed": self.seed})

    def fingerprint(self, judge: str) -> str:
        """Changes where the row would have to be trained, or judged, anew."""
        return spec_hash(self.spec()) + (f" {judge}" if self.kind == "gan" else "")


def planned(wanted: Iterable[str] = (), most_seeds: int | None = None) -> Iterator[Row]:
    """The rows of the table; of those only what all the words of ``wanted`` are true of."""
    words = set(wanted)
    for kind, preset, dataset, seeds in PLAN:
        for seed in range(min(seeds, most_seeds or seeds)):
            row = Row(kind, preset, dataset, seed)
            if words <= {str(value) for value in row.place.values()}:
                yield row
