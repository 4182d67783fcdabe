"""Checks the specs of predictions: whether a model fits a dataset, all faults at once, and what it will cost."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from service import kinds
from service.application.kinds import SubmissionOfKind
from service.application.specs import DATASET, Forecast, SpecChecks, priority_faults
from service.datasets.errors import DatasetError
from service.datasets.info import DatasetInfo
from service.datasets.shapes import shape_of
from service.errors import Fault, ModelNotFound, SpecError
from service.jobs.queries.estimates import Estimate, TrainingCost
from service.jobs.submissions import Submission
from service.kinds.kind import Ability
from service.kinds.prediction.spec import PinnedModel, PredictedPart, PredictionSpec, ResolvedPrediction, read
from service.models import references
from service.models.compatibility import columns_of, misfits
from service.models.references import Model
from service.schema import costs
from service.schema.layer_shapes import Network
from service.spec import validation
from service.spec.estimation.networks import networks
from service.spec.faults import describe
from service.spec.fields import shorthand
from service.spec.schema import Spec
from service.states import DatasetKind, Task

MAX_BYTES: Final = 2**30
"""Maximum expected size of the CSV file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedPrediction:
    """A prediction that can be submitted."""

    spec: ResolvedPrediction
    data: DatasetInfo
    rows: int
    trained: Spec
    """The spec of the model."""
    class_names: Sequence[str]
    """Of the model."""
    networks: Sequence[Network]
    class_notes: Sequence[str]

    @property
    def dataset(self) -> str:
        """The name of its dataset."""
        return self.spec.dataset.name

    @property
    def expected_bytes(self) -> int:
        """The size of the CSV file, if all cells are long."""
        has_classes = kinds.of(self.trained.kind).task is Task.CLASSIFICATION
        classes = self.networks[0].layer_shapes[-1].outputs if has_classes else 0
        return _csv_bytes(self.data, self.rows, classes, self.class_names)

    def submission(self, document: Any, owner: str | None) -> Submission:
        """What is stored of it.

        Args:
            document: the spec as sent.
        """
        return Submission(
            spec=document,
            resolved=self.spec,
            steps=self.rows,
            expected_bytes=self.expected_bytes,
            owner=owner,
            upload_id=self.data.upload_id,
            dataset_sha256=self.data.pinned_sha256 or self.data.sha256,
        )

    def forecast(self, notes_on_data: Sequence[str]) -> Forecast:
        """The response to a dry run."""
        cost = TrainingCost(
            parameters=costs.parameters(self.networks),
            steps=self.rows,
            estimated_bytes=costs.prediction_peak_bytes(self.expected_bytes, costs.parameters(self.networks)),
            checkpoint_bytes=0,
            expected_bytes=self.expected_bytes,
            estimate=Estimate(
                seconds=round(costs.prediction_seconds(self.trained, self.networks, self.rows), 1),
                basis="number of operations",
            ),
        )
        notes = [*notes_on_data, *self.class_notes]
        return Forecast(spec=self.spec, networks=self.networks, cost=cost, notes=notes)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Checks:
    """Checks predictions against the models and datasets of their owners."""

    specs: SpecChecks

    def check(self, document: Mapping[str, Any], owner: str | None) -> CheckedPrediction:
        """Check a prediction completely, and look up its model.

        Raises:
            SpecError: lists every fault.
        """
        faults: list[Fault] = []
        undescribed, spec = 0, None
        try:
            spec = _resolve(dict(document))
        except SpecError as error:
            faults += error.faults
            undescribed = error.total - len(error.faults)
        data = self._data(document, owner, faults)
        model = self._model(document, owner, faults)
        found = self._trained_on(model, faults) if model is not None else None
        highest = self.specs.max_priority(owner)
        if spec is not None and "priority" in document:
            faults += priority_faults(spec.priority, highest)
        if data is not None and found is not None and model is not None:
            columns = columns_of(model.job.provenance)
            faults += [
                Fault(pointer=DATASET, detail=item.detail, code="unsuitable", suggestion=item.suggestion)
                for item in misfits(columns, found.image_shape, data)
            ]
        rows = rows_of(data, spec.dataset.part) if spec is not None and data is not None else 0
        if spec is not None and data is not None and not rows:
            detail = f"{data.name} has no {spec.dataset.part} part"
            faults.append(Fault(pointer="#/dataset/part", detail=detail, code="unsuitable", suggestion="all"))
        if faults or spec is None or data is None or model is None or found is None:
            raise validation.relocate_faults(SpecError(faults, total=len(faults) + undescribed), document)
        trained = validation.read_resolved(model.job.resolved)
        checked = CheckedPrediction(
            spec=_pinned(spec, model, highest),
            data=data,
            rows=rows,
            trained=trained,
            class_names=found.class_names,
            networks=networks(trained, shape_of(found)),
            class_notes=_notes_on_classes(found, data),
        )
        if checked.expected_bytes > MAX_BYTES:
            size, limit = checked.expected_bytes / 2**30, MAX_BYTES / 2**30
            detail = f"the CSV file may take {size:.1f} GiB; at most {limit:.0f} are allowed: predict parts, or train "
            detail += "on fewer classes"
            raise SpecError([Fault(pointer="#/dataset", detail=detail, code="too_large")])
        return checked

    def _data(self, document: Mapping[str, Any], owner: str | None, faults: list[Fault]) -> DatasetInfo | None:
        dataset = document.get("dataset")
        name = dataset.get("name") if isinstance(dataset, dict) else dataset
        if not isinstance(name, str) or not name:
            return None  # a fault of the field
        return self.specs.look_up_dataset(name, owner, faults)

    def _model(self, document: Mapping[str, Any], owner: str | None, faults: list[Fault]) -> Model | None:
        """The model, if it predicts; its faults are appended to ``faults``."""
        reference = document.get("model")
        if not isinstance(reference, str) or not reference:
            return None

        def fault(detail: str, code: str) -> None:
            faults.append(Fault(pointer="#/model", detail=detail, code=code))

        try:
            with self.specs.database.read() as session:
                model = references.resolve(session, reference, owner=owner)
        except ModelNotFound as error:
            fault(str(error), "model_not_found")
            return None
        kind = kinds.of(model.job.kind)
        if Ability.PREDICT not in kind.abilities:
            fault(f"is a {kind.title}, which {kind.purpose}: POST /jobs/{model.job.id}/{kind.verb}", "unsuitable")
            return None
        return model

    def _trained_on(self, model: Model, faults: list[Fault]) -> DatasetInfo | None:
        """The data that the model was trained on, which names its classes."""
        try:
            return self.specs.datasets.of_job(model.job)
        except DatasetError as error:
            detail = f"the data that the model was trained on are not available: {error}"
            faults.append(Fault(pointer="#/model", detail=detail, code="unsuitable"))
            return None


def _resolve(document: dict[str, Any]) -> PredictionSpec:
    """Check every field of the spec of a prediction.

    Raises:
        SpecError: lists every fault, each with a pointer into the document.
    """
    merged = shorthand(PredictionSpec, document)
    try:
        return PredictionSpec.model_validate_json(json.dumps(merged))
    except ValidationError as error:
        faults = describe(PredictionSpec, error, merged)
        raise validation.relocate_faults(SpecError(faults, total=error.error_count()), document) from error


def rows_of(data: DatasetInfo, part: PredictedPart) -> int:
    """The number of examples to predict."""
    counts = {
        PredictedPart.TRAIN: data.train_count,
        PredictedPart.VALIDATION: data.validation_count,
        PredictedPart.TEST: data.test_count,
    }
    return sum(counts.values()) if part is PredictedPart.ALL else counts[part]


def _pinned(spec: PredictionSpec, model: Model, highest: int) -> ResolvedPrediction:
    pinned = PinnedModel(
        reference=spec.model,
        version=model.version,
        job=model.job.id,
        checkpoint=model.checkpoint.epoch,
        sha256=model.checkpoint.sha256,
    )
    fields = spec.model_dump(mode="json") | {"model": pinned.model_dump(mode="json")}
    return read(fields | {"priority": min(spec.priority, highest)})


_LONGEST_NUMBER: Final = 24
_LONGEST_PROBABILITY: Final = 12


def _csv_bytes(data: DatasetInfo, rows: int, classes: int, predicted_names: Sequence[str]) -> int:
    """Upper bound of the size of the CSV file, but for texts with quotes."""
    names = sum(max((len(name.encode()) for name in side), default=0) for side in (data.class_names, predicted_names))
    cells = names + 6 + (classes + 1) * (_LONGEST_PROBABILITY + 1) + 2 * _LONGEST_NUMBER
    if data.kind is DatasetKind.TABLE:
        cells += sum(_longest(column) + 1 for column in data.columns)
    return rows * cells


def _longest(column: Mapping[str, Any]) -> int:
    return max((len(str(text).encode()) + 2 for text in column.get("categories", ())), default=_LONGEST_NUMBER)


def _notes_on_classes(trained: DatasetInfo, data: DatasetInfo) -> list[str]:
    if trained.class_names == data.class_names or not trained.class_names:
        return []
    return [f"The model predicts the classes of {trained.name}, which differ from those of {data.name}."]


SUBMISSION: Final = SubmissionOfKind(check=lambda specs, document, owner: _Checks(specs=specs).check(document, owner))
