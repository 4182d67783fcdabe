"""What an error means for a job: its code, its hint, and whether this machine, not the job, is at fault."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from engine import DivergedError
from service.datasets.errors import DatasetError, DatasetUnavailable
from service.errors import JobNotFound, StorageQuotaExceeded
from service.jobs import leases
from service.schema.findings import Finding
from service.states import ErrorCode, MachineFaultReason
from service.storage.artifacts import ArtifactUnreadable
from workers.messages import MachineFault
from workers.training import limits
from workers.training.earlier_jobs.investigation import NothingToReplay
from workers.training.kinds import WorkFailed

_PROBE_BYTES: Final = 2**20
"""Minimum size of the file that a machine must be able to store before it claims jobs again."""


class InitialCheckpointLost(Exception):
    """The initial checkpoint of a fork cannot be used; with random weights it would be another job."""


class StopOnFinding(Exception):
    """The spec's ``health.stop_on`` lists a current finding."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.message)
        self.code = finding.code.value
        self.epoch = finding.epoch
        self.numbers = dict(finding.numbers)
        self.advice = "; or ".join(item.text for item in finding.advice)


@dataclass(slots=True, kw_only=True)
class Needs:
    """What is known of a job when it fails."""

    store: str
    """The address of the artifact store."""
    learning_rate: float = 0.0
    peak_bytes: int = 0
    checkpoint_bytes: int = 0
    smaller: str = "use smaller networks or batches"
    """What to do if the memory is not there."""
    kept: str = leases.CHECKPOINT_KEPT
    """What a retry continues from, as the end of a sentence."""

    @property
    def lower_rate(self) -> float:
        """A learning rate to try."""
        return self.learning_rate / 10


@dataclass(frozen=True, slots=True)
class Failure:
    """The error of a job; with ``fault``, another machine may do the job."""

    error: dict[str, Any]
    fault: MachineFault | None = None


def _full_folder(error: DatasetError, needs: Needs) -> MachineFault | None:
    if not isinstance(error, DatasetUnavailable) or error.full_folder is None:
        return None
    return MachineFault(MachineFaultReason.DATASET, str(error), str(error.full_folder), _PROBE_BYTES)


def _occupied_memory(error: MemoryError, needs: Needs) -> MachineFault | None:
    limits.lift_memory_limit()
    if (needed_bytes := limits.missing_memory_bytes(needs.peak_bytes)) is None:
        return None
    message = f"the job needs {needed_bytes / 1e6:,.0f} MB of memory, which other processes use"
    return MachineFault(MachineFaultReason.MEMORY, message, size_bytes=needed_bytes)


def _failed_store(error: Exception, needs: Needs) -> MachineFault:
    return MachineFault(MachineFaultReason.STORE, str(error), needs.store, max(_PROBE_BYTES, needs.checkpoint_bytes))


@dataclass(frozen=True, slots=True)
class _Meaning:
    errors: type[Exception] | tuple[type[Exception], ...]
    code: ErrorCode | None = None
    """``None``: that of the error."""
    hint: str = ""
    """Formatted with ``error`` and ``needs``."""
    facts: Sequence[str] = ()
    """Attributes of the error that a reader gets, too."""
    names_checkpoint: bool = False
    """Whether the reader gets the epoch of the latest checkpoint."""
    fault: Callable[[Any, Needs], MachineFault | None] = lambda error, needs: None


_OTHER_RATE: Final = (
    "the same spec would diverge again: try a learning rate of {needs.lower_rate:g} (it was "
    '{needs.learning_rate:g}), loss.reduction "mean", or the adam optimizer'
)
_ADVICE: Final = "stopped because of health.stop_on; try {error.advice}"
_OTHER_START: Final = "fork the parent again, or restore the file and retry"
_MORE_SPACE: Final = "delete jobs, or ask the operator for a higher limit, then retry{needs.kept}"
_MORE_MEMORY: Final = "{needs.smaller}, or give the worker more memory"
_REPAIR: Final = leases.STORAGE_REMEDY + "{needs.kept}"
_MEANINGS: Final = (
    _Meaning(DivergedError, ErrorCode.DIVERGED, _OTHER_RATE, facts=("epoch", "step"), names_checkpoint=True),
    _Meaning(StopOnFinding, None, _ADVICE, facts=("epoch", "numbers"), names_checkpoint=True),
    _Meaning(DatasetError, fault=_full_folder),
    _Meaning(WorkFailed, None, "{error.hint}"),
    _Meaning((NothingToReplay, JobNotFound), ErrorCode.NOT_COMPARABLE),
    _Meaning(InitialCheckpointLost, ErrorCode.STORAGE, _OTHER_START),
    _Meaning(StorageQuotaExceeded, ErrorCode.STORAGE_QUOTA, _MORE_SPACE),
    _Meaning(MemoryError, ErrorCode.OUT_OF_MEMORY, _MORE_MEMORY, fault=_occupied_memory),
    _Meaning((OSError, ArtifactUnreadable), ErrorCode.STORAGE, _REPAIR, fault=_failed_store),
)
"""The first entry that an error belongs to decides."""


def explain(error: Exception, needs: Needs, latest_checkpoint: Callable[[], int | None]) -> Failure:
    """What an error means.

    Args:
        latest_checkpoint: reads the epoch of the latest checkpoint.
    """
    meaning = next((meaning for meaning in _MEANINGS if isinstance(error, meaning.errors)), None)
    if meaning is None:  # a bug must not look like a lost worker
        traceback.print_exception(error, file=sys.stderr)
        return Failure({"code": ErrorCode.INTERNAL, "message": f"{type(error).__name__}: {error}"})
    fault = meaning.fault(error, needs)
    message = str(error) or ("out of memory" if isinstance(error, MemoryError) else "")
    document: dict[str, Any] = {"code": meaning.code or error.code, "message": message}  # type: ignore[attr-defined]
    document |= {name: getattr(error, name) for name in meaning.facts}
    if meaning.names_checkpoint:
        document["last_good_checkpoint"] = latest_checkpoint()
    if meaning.hint:
        document["hint"] = meaning.hint.format(error=error, needs=needs)
    return Failure(document, fault)
