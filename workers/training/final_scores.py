"""The scores on the test part of the data, computed once, at the end of a training, with its final weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine import CheckpointError, checkpoint
from service.datasets.cache import Dataset
from service.datasets.tables.preprocessing import Preprocessing
from service.jobs import commits
from service.storage.artifacts import ArtifactDamaged
from workers.training import build, kinds
from workers.training.training_run import TrainingRun, log


def test_scores(
    run: TrainingRun,
    trainer: Any,
    dataset: Dataset,
    preprocessing: Preprocessing | None,
    *,
    commit_epochs: Callable[[], None],
) -> dict[str, float] | None:
    """Scores such as ``test_loss``, ``test_epoch``, the epoch of the weights, and
    ``test_count``, the number of examples; ``None`` without a test part.

    The weights are those of the best checkpoint (averaged, if the spec requires it) or, if it is lost, the last ones.
    Afterwards the trainer has the weights that were scored.

    Args:
        commit_epochs: called before a checkpoint is read.

    Raises:
        ArtifactUnreadable: the artifact folder cannot be read.
    """
    data = build.test_data(dataset, run.spec, preprocessing)
    if data is None or not kinds.training(run.spec.kind).is_tested:
        return None
    best = trainer.best_epoch
    row = None
    if best != trainer.epoch:
        commit_epochs()
        row = next((row for row in run.lease.call(commits.checkpoints) if row.epoch == best), None)
    if row is not None:
        try:
            trainer.load_state_dict(checkpoint.loads(run.artifacts.read(row.path, row.sha256)))
        except (ArtifactDamaged, CheckpointError) as error:
            log.warning("checkpoint dropped", epoch=row.epoch, error=str(error))
            run.lease.call(commits.drop_checkpoint, row, str(error))
    scores: dict[str, float] = trainer.test(data)
    return scores | {"test_epoch": trainer.epoch, "test_count": len(data)}
