"""Checks specs against the available datasets: all faults, and an estimate of the cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, assert_never

from service.access.owners import HIGHEST_PRIORITY
from service.datasets.builtins import BUILT_IN
from service.datasets.errors import DatasetBroken, DatasetNotFound
from service.datasets.info import DatasetInfo, DatasetState
from service.datasets.shapes import default_preset, shape_of
from service.errors import Fault, SpecError
from service.jobs.queries import estimates
from service.jobs.queries.estimates import TrainingCost
from service.schema.layer_shapes import Network, Shape
from service.spec import validation
from service.spec.dataset_checks import TABLE_PRESET, check_fit, table_faults, task_faults
from service.spec.estimation.networks import networks as networks_of
from service.spec.presets.adaptation import match_output_to_dataset
from service.spec.presets.definitions import PRESETS
from service.spec.schema import JobSpec, Spec
from service.spec.splits import Split
from service.states import DatasetKind
from service.storage.database import Database
from service.storage.tables import Job
from service.wording import counted

DATASET: Final = "#/dataset/name"
DIGIT_SIDE: Final = 28
"""Rows and columns of the images for which the presets are written."""
_BUSY: Final = 1.5
"""On a busy machine, jobs take at least this many times their CPU time."""


class DatasetCatalogue(Protocol):
    """The datasets that are visible to an owner. ``DatasetRepository`` implements this, with NumPy."""

    def catalogue(self, owner: str | None) -> list[DatasetInfo]:
        """All datasets that the owner can use."""

    def describe(self, name: str, owner: str | None) -> DatasetInfo:
        """One dataset."""

    def look_up(self, name: str, owner: str | None) -> DatasetInfo:
        """One dataset, even if its files are damaged."""

    def of_job(self, job: Job) -> DatasetInfo:
        """The dataset version that a job is pinned to."""


def priority_faults(priority: int, highest: int) -> list[Fault]:
    """The fault of a priority above the owner's highest."""
    if priority <= highest:
        return []
    detail = f"your highest priority is {highest}; an admin can raise it: `tapeline owners set OWNER --max-priority 9`"
    return [Fault(pointer="#/priority", detail=detail, code="priority_too_high", suggestion=f"use {highest} or less")]


class NetworkMismatch(SpecError):
    """The fields of a spec are valid, but its layers do not fit together or do not fit the dataset.

    Attributes:
        spec: the resolved spec.
        networks: the layers with their shapes, as far as they fit.
    """

    def __init__(self, error: SpecError, spec: Spec, networks: Sequence[Network]) -> None:
        super().__init__(error.faults, total=error.total)
        self.spec, self.networks = spec, networks


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """The result of a dry run: the resolved spec and its estimated cost."""

    spec: JobSpec
    networks: Sequence[Network]
    cost: TrainingCost
    notes: Sequence[str]
    """Hints to read before submitting the spec."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecChecks:
    """Checks specs against the datasets and settings of their owners."""

    database: Database
    datasets: DatasetCatalogue
    max_priority: Callable[[str | None], int] = lambda owner: HIGHEST_PRIORITY

    def check(
        self, document: Any, owner: str | None, data: DatasetInfo | None = None
    ) -> tuple[Spec, DatasetInfo, Sequence[Network]]:
        """Check a spec completely; also returns its dataset and its networks.

        Args:
            data: the dataset that an earlier job is pinned to; by default, the one that the spec names.

        Raises:
            SpecError: lists every fault.
        """
        spec, data = self.resolve(document, owner, data)
        return spec, data, _check_fit(document, spec, shape_of(data))

    def resolve(self, document: Any, owner: str | None, data: DatasetInfo | None = None) -> tuple[Spec, DatasetInfo]:
        """The resolved spec, adapted to its dataset. Does not check that layers fit each other.

        Raises:
            SpecError: lists every fault of fields and of the dataset.
        """
        faults: list[Fault] = []
        undescribed = 0
        spec: Spec | None = None
        data_faults: list[Fault] = []
        name = _dataset_name(document)
        if data is None and name is not None:
            data = self.look_up_dataset(name, owner, data_faults)
        document = _with_default_preset(document, data)
        try:
            spec = validation.resolve(document)
        except SpecError as error:
            faults.extend(error.faults)
            undescribed = error.total - len(error.faults)
        if data is None and not data_faults and spec is not None:
            data = self.look_up_dataset(spec.dataset.name, owner, data_faults)
        faults += data_faults
        if spec is not None:
            highest = self.max_priority(owner)
            if spec.priority > highest and "priority" not in document:
                spec = spec.model_copy(update={"priority": highest})
            faults += priority_faults(spec.priority, highest)
        if spec is not None and data is not None:
            faults += task_faults(spec, data.task, data.target)
            if data.kind is DatasetKind.TABLE:
                faults += table_faults(spec, document, data.task)
        if faults or spec is None or data is None:
            raise validation.relocate_faults(SpecError(faults, total=len(faults) + undescribed), document)
        data = data.divided(Split.of(spec.model_dump(mode="json", include={"seed", "dataset"})))
        return match_output_to_dataset(spec, document, shape_of(data)), data

    def forecast(self, document: Any, owner: str | None, data: DatasetInfo | None = None) -> Forecast:
        """Check a spec and estimate its cost without storing anything.

        Args:
            data: the dataset, if it is not stored.

        Raises:
            NetworkMismatch: its layers do not fit.
            SpecError: lists every other fault.
        """
        notes = []
        is_stored = data is None
        spec, data = self.resolve(document, owner, data)
        shape = shape_of(data)
        try:
            networks = _check_fit(document, spec, shape)
        except SpecError as error:
            raise NetworkMismatch(error, spec, networks_of(spec, shape)) from error
        with self.database.read() as session:
            cost = estimates.plan(session, spec, networks, shape, owner=owner)
        if (folds := spec.dataset.folds) is not None and spec.dataset.fold is None:
            notes.append(f"{folds} jobs are submitted, one for each fold. The cost is that of one of them.")
        if (slowdown := cost.estimate.slowdown) >= _BUSY:
            whose = "its" if cost.estimate.basis.startswith("1 ") else "their"
            basis = f"{cost.estimate.basis} took {slowdown:.1f} times as long as {whose} CPU time"
            notes.append(f"The machine is busy: {basis}.")
        if is_stored:
            notes += self.notes_on_data(spec.dataset.name, owner)
        notes += _notes_on_preset(_with_default_preset(document, data), spec, shape)
        return Forecast(spec=spec, networks=networks, cost=cost, notes=notes)

    def look_up_dataset(self, name: str, owner: str | None, faults: list[Fault]) -> DatasetInfo | None:
        """The dataset; its faults are appended to ``faults``."""
        try:
            built_in = BUILT_IN.get(name)  # known without reading files
            return built_in.info if built_in is not None else self.datasets.describe(name, owner)
        except DatasetNotFound as error:
            available = f"available: {', '.join(error.available)}"
            faults.append(_dataset_fault(error.code, f"unknown dataset; {available}", error.suggestion))
        except DatasetBroken as error:
            faults.append(_dataset_fault(error.code, f"its files are damaged: {error.path.name}: {error.reason}"))
        return None

    def notes_on_data(self, name: str, owner: str | None) -> list[str]:
        """Hints about a download that is necessary before the job."""
        info = self.datasets.describe(name, owner)
        size = f"{info.download_bytes / 1e6:.0f} MB"
        match info.state:
            case DatasetState.READY:
                return []
            case DatasetState.DOWNLOAD:
                source = info.download_from[0]
                return [f"{name} is not downloaded yet; the job downloads {size} from {source} when it starts."]
            case DatasetState.UNAVAILABLE:
                reason = info.download_problem or "there is no place to download it from"
                return [f"{name} is not downloaded yet, and {reason}. The job tries to download {size} when it starts."]
            case _:
                assert_never(info.state)


def _with_default_preset(document: Any, data: DatasetInfo | None) -> Any:
    """The document with the default preset for its dataset, if its kind has it."""
    kind = document.get("kind") if isinstance(document, dict) else None
    presets = next((presets for name, presets in PRESETS.items() if name == kind), {})
    if data is None or (preset := default_preset(data)) not in presets:
        return document
    return {"preset": preset} | document


def _check_fit(document: Any, spec: Spec, shape: Shape) -> Sequence[Network]:
    """Check that a spec's parts fit each other and its dataset; returns its networks.

    Raises:
        SpecError: lists every fault.
    """
    try:
        return check_fit(spec, shape)
    except SpecError as error:
        raise validation.relocate_faults(error, document) from error


def _notes_on_rows(document: Mapping[str, Any], spec: Spec, shape: Shape) -> list[str]:
    """The settings that preset ``table`` derives from the number of rows, unless the spec has them."""
    adapted = [f"{name} {getattr(spec, name)}" for name in ("batch_size", "epochs") if name not in document]
    if spec.preset != TABLE_PRESET or not adapted:
        return []
    return [f"Preset {spec.preset} takes {' and '.join(adapted)} for {shape.train_count:,} training rows."]


def _notes_on_preset(document: Any, spec: Spec, shape: Shape) -> list[str]:
    """Hints about the adaptation of the preset to the dataset."""
    preset = validation.resolve(document)
    notes = []
    if shape.kind is DatasetKind.TABLE:
        return _notes_on_rows(document, spec, shape)
    if shape.picture != (DIGIT_SIDE, DIGIT_SIDE, 1):
        before, after = (
            [network["layers"] for network in _networks(resolved.model_dump(mode="json"))]
            for resolved in (preset, spec)
        )
        if before != after:
            notes.append(f"The layers of preset {spec.preset} are adapted to images of {shape.described}.")
    if spec.batch_size == shape.train_count != preset.batch_size:
        notes.append(f"batch_size is {spec.batch_size}, the number of training images of {spec.dataset.name}.")
    elif (spec.batch_size, spec.epochs) != (preset.batch_size, preset.epochs):
        adapted = f"batch_size {spec.batch_size} and {counted(spec.epochs, 'epoch')}"
        notes.append(f"Preset {spec.preset} takes {adapted} for {shape.train_count:,} training images.")
    if spec.samples.count != preset.samples.count:
        notes.append(f"samples.count is {spec.samples.count}, the maximum for images of this size.")
    return notes


def _networks(resolved: dict[str, Any]) -> list[dict[str, Any]]:
    """The objects that have layers: the classifier itself, or the networks of a GAN."""
    return [resolved] if "layers" in resolved else [resolved["generator"], resolved["discriminator"]]


def _dataset_name(document: Any) -> str | None:
    dataset = document.get("dataset") if isinstance(document, dict) else None
    name = dataset.get("name") if isinstance(dataset, dict) else dataset
    return name if isinstance(name, str) and name else None


def _dataset_fault(code: str, detail: str, suggestion: str | None = None) -> Fault:
    hint = f"; did you mean {suggestion!r}?" if suggestion else ""
    return Fault(pointer=DATASET, detail=detail + hint, code=code, suggestion=suggestion)
