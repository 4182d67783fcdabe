"""Rules that recognize training failures from the metrics of the epochs so far.

A tracker is a fold over the epochs: a worker that takes a job over replays the stored epochs and gets the same
findings. Rules prefer silence to false alarms: they report only trainings that are failing.
"""

from __future__ import annotations

from service.diagnosis.advice import suggestions
from service.kinds import rooms
from service.kinds.rules import WINDOW_EPOCHS, MetricHistory, Metrics, finite
from service.schema.findings import Finding
from service.schema.layer_shapes import Shape
from service.spec.schema import Spec
from service.states import FindingCode


class DiagnosticsTracker:
    """Tracks the findings of a training, epoch by epoch.

    Args:
        shape: of the dataset: advice must fit it.
        leak: what is known of columns of the dataset that alone predict the class.
        is_fork: whether the first weights are those of a checkpoint, so that another initializer changes nothing.
    """

    def __init__(self, spec: Spec, shape: Shape, leak: str | None = None, *, is_fork: bool = False) -> None:
        self._spec, self._shape, self._is_fork = spec, shape, is_fork
        self._diagnosis = rooms.specs(spec.kind).diagnosis
        self._history = MetricHistory(leak=leak)
        self._open: dict[FindingCode, Finding] = {}
        self._epochs_without_evidence: dict[FindingCode, int] = {}

    @property
    def findings(self) -> list[Finding]:
        """The current findings, oldest first."""
        return list(self._open.values())

    def add(self, epoch: int, metrics: Metrics) -> None:
        """Apply the rules to the next epoch. Epochs must be added in order."""
        self._history.add(epoch, {name: finite(value) for name, value in metrics.items()})
        for rule in self._diagnosis.rules:
            if rule.persists is not None and rule.code in self._open:
                if not rule.persists(self._history):
                    del self._open[rule.code]
                continue
            evidence = rule.evidence(self._history)
            if evidence is None:
                self._epochs_without_evidence[rule.code] = self._epochs_without_evidence.get(rule.code, 0) + 1
                if self._epochs_without_evidence[rule.code] >= WINDOW_EPOCHS:
                    self._open.pop(rule.code, None)
                continue
            self._epochs_without_evidence[rule.code] = 0
            if rule.code not in self._open:
                message, numbers = evidence
                self._open[rule.code] = Finding(
                    code=rule.code,
                    severity=rule.severity,
                    epoch=epoch,
                    message=message,
                    numbers=numbers,
                    advice=suggestions(
                        rule.code,
                        self._spec,
                        self._shape,
                        is_stuck=self._diagnosis.is_stuck(self._history),
                        is_fork=self._is_fork,
                    ),
                )
