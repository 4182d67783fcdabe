"""A spec against the datasets that there are: everything that can be wrong with it, and what it would cost."""

from __future__ import annotations

from typing import Any, Final, assert_never

from service import datasets
from service.datasets import DatasetInfo, DatasetState
from service.errors import Fault, SpecError
from service.jobs.estimation import estimates
from service.spec import validation
from service.spec.estimation import layer_shapes
from service.spec.estimation.layer_shapes import Shape
from service.spec.schema import Spec
from service.web.schemas.representations import DryRun, NetworkItem, network_item
from service.web.services import owner, services

DIGIT_SIDE: Final = 28
"""Rows and columns of the images that presets are written for."""


def check(document: Any, data: DatasetInfo | None = None) -> tuple[Spec, DatasetInfo]:
    """Check everything that can be wrong with a spec; gives what is known of its data, too.

    Args:
        data: the dataset, where the spec's name does not tell: that which an earlier job is pinned to.

    Raises:
        SpecError: names every fault.
    """
    spec, data = resolve(document, data)
    check_fit(document, spec, shape_of(data))
    return spec, data


def resolve(document: Any, data: DatasetInfo | None = None) -> tuple[Spec, DatasetInfo]:
    """The spec with every value filled in, for its dataset; layers may still not fit each other.

    Raises:
        SpecError: names every fault of a field, and of the dataset.
    """
    faults: list[Fault] = []
    undescribed = 0
    spec: Spec | None = None
    try:
        spec = validation.resolve(document)
    except SpecError as error:
        faults.extend(error.faults)
        undescribed = error.total - len(error.faults)
    name = spec.dataset.name if spec is not None else _dataset_name(document)
    if data is None and name is not None:
        try:
            data = _described(name)
        except datasets.DatasetNotFound as error:
            known = f"available: {', '.join(error.known)}"
            faults.append(_dataset_fault(error.code, f"unknown dataset; {known}", error.suggestion))
        except datasets.DatasetBroken as error:
            faults.append(_dataset_fault(error.code, f"its files are damaged: {error.path.name}: {error.reason}"))
    if faults or spec is None or data is None:
        raise validation.as_sent(SpecError(faults, total=len(faults) + undescribed), document)
    return validation.match_output_to_dataset(spec, document, shape_of(data)), data


def check_fit(document: Any, spec: Spec, fits: Shape) -> None:
    """Check that a spec's parts fit each other and its dataset.

    Raises:
        SpecError: names every fault.
    """
    try:
        validation.check_fit(spec, fits)
    except SpecError as error:
        raise validation.as_sent(error, document) from error


def networks(spec: Spec, fits: Shape) -> list[NetworkItem]:
    """The layers of a spec's networks, as far as they fit."""
    return [network_item(network) for network in layer_shapes.networks(spec, fits.rows, fits.columns)]


def dry_run(document: Any, spec: Spec, fits: Shape) -> DryRun:
    """What a checked spec would become and cost, and what is worth knowing before it is sent."""
    with services().database.read() as session:
        cost = estimates.plan(session, spec, fits, owner=owner())
    estimate = cost.estimate
    return DryRun(
        resolved=spec.model_dump(mode="json"),
        networks=networks(spec, fits),
        parameters=cost.parameters,
        steps=cost.steps,
        estimated_bytes=cost.estimated_bytes,
        checkpoint_bytes=cost.checkpoint_bytes,
        estimated_seconds=estimate.seconds if estimate else None,
        estimated_seconds_low=estimate.low_s if estimate else None,
        estimated_seconds_high=estimate.high_s if estimate else None,
        estimate_basis=estimate.basis if estimate else None,
        notes=[*_of_the_data(spec), *_of_the_preset(document, spec, fits)],
    )


def _of_the_data(spec: Spec) -> list[str]:
    """What a job has to do before it can train."""
    name = spec.dataset.name
    info = services().shelf.describe(name, owner())
    size = f"{info.download_bytes / 1e6:.0f} MB"
    match info.state:
        case DatasetState.READY:
            return []
        case DatasetState.DOWNLOAD:
            source = info.download_from[0]
            return [f"{name} is not downloaded yet; the job downloads {size} from {source} when it starts."]
        case DatasetState.UNAVAILABLE:
            why = info.download_problem or "there is no place to download it from"
            return [f"{name} is not downloaded yet, and {why}. The job tries to download {size} when it starts."]
        case _:
            assert_never(info.state)


def _of_the_preset(document: Any, spec: Spec, fits: Shape) -> list[str]:
    """Where the preset was adapted to the data."""
    preset = validation.resolve(document)
    notes = []
    if fits.rows != DIGIT_SIDE or fits.columns != DIGIT_SIDE:
        before, after = ([part["layers"] for part in _parts(one.model_dump(mode="json"))] for one in (preset, spec))
        if before != after:
            notes.append(f"The layers of preset {spec.preset} are adapted to images of {fits.rows} x {fits.columns}.")
    if spec.batch_size != preset.batch_size:
        notes.append(f"batch_size is {spec.batch_size}, the number of training images of {spec.dataset.name}.")
    if spec.samples.count != preset.samples.count:
        notes.append(f"samples.count is {spec.samples.count}: larger grids of images of this size are not allowed.")
    return notes


def _parts(resolved: dict[str, Any]) -> list[dict[str, Any]]:
    """What has layers: a classifier itself, or the networks of a GAN."""
    return [resolved] if "layers" in resolved else [resolved["generator"], resolved["discriminator"]]


def shape_of(info: DatasetInfo) -> Shape:
    """What a spec has to fit."""
    rows, columns = info.image_shape
    return Shape(
        rows=rows,
        columns=columns,
        classes=info.classes,
        train_count=info.train_count,
        validation_count=info.validation_count,
    )


def _described(name: str) -> DatasetInfo:
    """The dataset; of one that this package knows nobody needs to look at its files."""
    known = datasets.BUILT_IN.get(name)
    return known.info if known is not None else services().shelf.describe(name, owner())


def _dataset_name(document: Any) -> str | None:
    dataset = document.get("dataset") if isinstance(document, dict) else None
    name = dataset.get("name") if isinstance(dataset, dict) else dataset
    return name if isinstance(name, str) and name else None


def _dataset_fault(code: str, detail: str, suggestion: str | None = None) -> Fault:
    hint = f"; did you mean {suggestion!r}?" if suggestion else ""
    return Fault(pointer="#/dataset/name", detail=detail + hint, code=code, suggestion=suggestion)
