"""What is known of a kind of job without its libraries: what its jobs do, and what may be done with them.

The other rooms of a kind have fixed names, and each process loads only those that it needs (``service.kinds.rooms``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from service.schema.metrics import MetricInfo
from service.states import Action, FindingCode, Task


class Ability(StrEnum):
    """What a job of a kind, or the model that it has trained, can be asked for."""

    EXPORT = "export"
    """Files of a trained model."""
    PREDICT = "predict"
    GENERATE = "generate"
    CLASSIFY = "classify"
    """Confusion matrix, mistakes and calibration on the validation part."""
    RESIDUALS = "residuals"
    """Errors of predicted numbers on the validation part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KindOfJob:
    """A kind of job. The defaults are those of a kind that trains a model."""

    name: str
    label: str = ""
    """In sentences and on pages; by default, the name."""
    trains: bool = True
    """Whether a job trains a model, epoch by epoch, and has metrics; otherwise it starts again after an
    interruption, and counts rows."""
    verb: str = "predict"
    """What its models do: the last part of the path that asks for it."""
    purpose: str = ""
    """The same in words: ``generates images``."""
    abilities: frozenset[Ability] = frozenset()
    remedies: Mapping[Ability | None, str] = field(default_factory=dict)
    """What to do instead of asking for an ability that it does not have, with ``{job}``; ``None``: for all others."""
    excluded_actions: frozenset[Action] = frozenset()
    """Actions that no job of this kind permits."""
    task: Task | None = None
    """What its networks learn from a dataset, which must have this task; ``None``: any dataset of images."""

    metrics: Mapping[str, MetricInfo] = field(default_factory=dict)
    """The metrics that only some kinds report."""
    key_metrics: Sequence[str] = ()
    """Metrics for summaries, most important first; the first is the default objective."""
    live_metrics: Sequence[str] = ()
    """The same in the order in which they are shown during a training, as far as they fit."""
    fold_metrics: Sequence[str] = ()
    """Metrics that are averaged over folds, as names of columns; without any, there is no cross-validation."""
    typical_error: str | None = None
    """The metric that a single prediction typically misses the truth by."""
    findings: Sequence[FindingCode] = ()
    """Failures that diagnosis can recognize."""

    plots: Sequence[str] = ()
    """``importance`` needs a table."""
    result_plots: Sequence[str] = ()
    """Those that its results list."""
    shows_best: bool = True
    """Whether pages show the model of the best epoch, rather than of the latest."""
    shares_samples: bool = False
    """Whether a share link shows its sample grids; otherwise, they show examples of the dataset."""
    has_reference_classifier: bool = False
    """Whether its samples are scored by the reference classifier of the dataset."""
    example: Mapping[str, Any] = field(default_factory=dict)
    """Settings of a spec that documents show."""
    summary: str = "{kind}, preset {preset}, dataset {dataset[name]}"
    """A resolved spec in a few words."""
    uses_model: str = ""
    """The model that a resolved spec names, in words; empty: none."""
    use_command: str = "predict {} FILE"
    """The command that uses a model; ``{}`` is its reference."""
    client_call: str = "predict(data)"
    """The same in Python."""
    next_commands: Sequence[str] = ()
    """What the command line suggests after a training; ``{}`` is the job."""

    @property
    def has_classes(self) -> bool:
        """Whether its models tell classes apart."""
        return Ability.CLASSIFY in self.abilities

    @property
    def title(self) -> str:
        """The label, or the name."""
        return self.label or self.name

    def remedy(self, ability: Ability | None, job: Any) -> str:
        """What to do instead of asking a job for an ability that it does not have."""
        default = f"it {self.verb}s: POST /jobs/{{job.id}}/{self.verb}"
        return self.remedies.get(ability, self.remedies.get(None, default)).format(job=job)
