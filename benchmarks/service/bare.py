"""The engine's training loop alone, as a user would write it without the service."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from engine import ClassifierTrainer
from service import datasets
from service.spec.validation import resolve
from workers.training import build


def main() -> None:
    """Print the training time in seconds of the spec in the first argument, without imports."""
    spec = resolve(json.loads(sys.argv[1]))
    root = Path(os.environ["TAPELINE_DATA"])
    began = time.perf_counter()
    dataset = datasets.load(spec.dataset.name, root, cache_root=root / ".cache")
    trainer = build.trainer(spec, dataset)
    assert isinstance(trainer, ClassifierTrainer)
    for _ in trainer.run():
        pass
    print(time.perf_counter() - began)


if __name__ == "__main__":
    main()
