"""A run produces the same bits in another process, and when another process resumes it."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engine import (
    SGD,
    Adam,
    ClassifierTrainer,
    Dense,
    Dropout,
    EpochDone,
    GanTrainer,
    ImageData,
    Latent,
    Sequential,
    SoftmaxCrossEntropy,
    checkpoint,
    generator_for,
    schedules,
)

pytestmark = pytest.mark.stack

EPOCHS = 4


def images() -> ImageData:
    rng = generator_for(0, "images")
    return ImageData(rng.integers(0, 256, (130, 9, 9), np.uint8), rng.integers(0, 5, 130), (-1, 1))


def dense(*sizes: int, output_activation: str) -> Sequential:
    rng = generator_for(0, "init")
    hidden = [Dense(i, units, "tanh", rng=rng) for i, units in itertools.pairwise(sizes[:-1])]
    return Sequential([*hidden, Dropout(0.2), Dense(*sizes[-2:], output_activation, rng=rng)])


def classifier() -> ClassifierTrainer:
    return ClassifierTrainer(
        dense(81, 40, 5, output_activation="softmax"),
        SoftmaxCrossEntropy(),
        Adam(0.01),
        schedules.one_cycle(),
        train=images(),
        validation=images(),
        epochs=EPOCHS,
        batch_size=32,
        shuffle=True,
        seed=7,
        max_shift=1,
        average_decay=0.9,
    )


def gan() -> GanTrainer:
    return GanTrainer(
        dense(10, 30, 81, output_activation="tanh"),
        dense(81, 30, 1, output_activation="sigmoid"),
        Adam(0.01),
        SGD(0.05, 0.9),
        schedules.cosine(),
        schedules.constant(),
        train=images(),
        latent=Latent(10),
        epochs=EPOCHS,
        batch_size=32,
        shuffle=True,
        seed=7,
        skip_every=3,
    )


def main(kind: str, last: int, target: Path, source: Path | None = None) -> None:
    """Train to epoch ``last`` from scratch or the checkpoint ``source``; save one to ``target``."""
    trainer = {"classifier": classifier, "gan": gan}[kind]()
    if source:
        trainer.load_state_dict(checkpoint.load(source))
    for report in trainer.run():
        if isinstance(report, EpochDone) and report.epoch == last:
            break
    checkpoint.save(target, trainer.state_dict())


@pytest.mark.parametrize("kind", ["classifier", "gan"])
def test_other_processes_produce_the_same_bits(kind: str, tmp_path: Path) -> None:
    def run_in_another_process(seed: int, *arguments: object) -> None:
        command = [sys.executable, "-m", "tests.engine.trainers.test_processes", kind, *map(str, arguments)]
        subprocess.run(command, check=True, env=os.environ | {"PYTHONHASHSEED": str(seed)})

    main(kind, EPOCHS, tmp_path / "here")
    main(kind, 2, tmp_path / "begun here")
    run_in_another_process(1, EPOCHS, tmp_path / "elsewhere")
    run_in_another_process(2, EPOCHS, tmp_path / "ended elsewhere", tmp_path / "begun here")
    expected = (tmp_path / "here").read_bytes()
    assert (tmp_path / "elsewhere").read_bytes() == expected
    assert (tmp_path / "ended elsewhere").read_bytes() == expected


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *map(Path, sys.argv[3:]))
