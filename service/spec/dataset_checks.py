"""Checks that a spec fits its dataset: layers, losses, and the limits of one job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from service import kinds
from service.errors import Fault, SpecError
from service.kinds import rooms
from service.schema import costs
from service.schema.layer_shapes import Network, Shape
from service.spec.estimation.networks import networks
from service.spec.schema import (
    MAX_MEMORY_BYTES,
    MAX_OPERATIONS,
    MAX_PARAMETERS,
    MAX_SHOWN_PIXELS,
    Reshape,
    Sgd,
    Spec,
)
from service.states import Task
from service.wording import listed


def check_fit(spec: Spec, shape: Shape) -> list[Network]:
    """Check that layers fit each other, the data's shape and the loss, and that the job stays within its limits;
    returns the networks.

    Raises:
        SpecError: names every fault.
    """
    all_networks = networks(spec, shape)
    faults = [fault for network in all_networks for fault in network.faults]
    faults += rooms.specs(spec.kind).faults(spec, all_networks, shape)
    faults += _momentum_faults(spec)
    possible = kinds.of(spec.kind).findings
    for index, code in enumerate(spec.stop_on):
        if code not in possible:
            detail = f"is not a finding of a {spec.kind} job; findings are {', '.join(possible)}"
            faults.append(Fault(pointer=f"#/health/stop_on/{index}", detail=detail, code="unsuitable"))
    low, high = spec.dataset.scale
    if low >= high:
        faults.append(
            Fault(pointer="#/dataset/scale", detail="must be [low, high] with low < high", code="out_of_range")
        )
    if spec.batch_size > shape.train_count:
        detail = f"must be at most {shape.train_count}, the number of training images of {spec.dataset.name}"
        faults.append(Fault(pointer="#/batch_size", detail=detail, code="out_of_range"))
    faults += _split_faults(spec, shape)
    faults += _limit_faults(spec, all_networks, shape)
    if faults:
        raise SpecError(faults)
    return all_networks


def _momentum_faults(spec: Spec) -> list[Fault]:
    """Faults of all optimizers that a spec names."""
    own = {
        f"#/{network.name}/optimizer": network.optimizer
        for network in spec.trained_networks
        if network.has_own_optimizer
    }
    return [
        Fault(pointer=f"{pointer}/nesterov", detail="needs a momentum above 0", code="unsuitable")
        for pointer, optimizer in {"#/optimizer": spec.optimizer, **own}.items()
        if isinstance(optimizer, Sgd) and optimizer.nesterov and not optimizer.momentum
    ]


def _split_faults(spec: Spec, shape: Shape) -> list[Fault]:
    """Faults of the split into training and validation examples."""
    data, faults = spec.dataset, []

    def fault(name: str, detail: str, code: str = "unsuitable") -> None:
        faults.append(Fault(pointer=f"#/dataset/{name}", detail=detail, code=code))

    pool = shape.train_count + shape.validation_count
    if data.folds is not None:
        if data.validation_fraction is not None:
            fault("validation_fraction", "cannot be combined with folds: each fold is the validation part of one job")
        if not (kind := kinds.of(spec.kind)).fold_metrics:
            others = listed(f"{other.title}s" for other in kinds.ALL if other.fold_metrics)
            fault("folds", f"are for {others}: a {kind.title} has no accuracy to validate")
        if data.folds > pool:
            fault("folds", f"must be at most {pool}, the number of examples of {data.name}", "out_of_range")
        if data.fold is not None and data.fold >= data.folds:
            fault("fold", f"must be less than {data.folds}, the number of folds", "out_of_range")
    elif data.fold is not None:
        fault("fold", "requires folds, the number of folds")
    if data.split_seed is not None and data.folds is None and data.validation_fraction is None:
        fault("split_seed", "has an effect only with validation_fraction or folds")
    return faults


def _limit_faults(spec: Spec, all_networks: Sequence[Network], shape: Shape) -> list[Fault]:
    """Faults of exceeded limits, each at the field that contributes most."""
    faults = []
    parameters = costs.parameters(all_networks)
    if parameters > MAX_PARAMETERS:
        detail = f"the networks have {parameters:,} parameters; at most {MAX_PARAMETERS:,} are allowed"
        faults.append(Fault(pointer="#", detail=detail, code="too_large"))
    peak_bytes = costs.peak_bytes(spec, all_networks, shape)
    if peak_bytes > MAX_MEMORY_BYTES:
        shares = {"#/dataset/name": costs.data_bytes(shape), "#/batch_size": costs.activation_bytes(spec, all_networks)}
        largest = max(shares, key=lambda pointer: shares[pointer])
        pointer = largest if shares[largest] > peak_bytes / 2 else "#"
        detail = (
            f"would take {peak_bytes / 2**30:,.1f} GiB of memory; at most {MAX_MEMORY_BYTES / 2**30:.0f} are allowed"
        )
        faults.append(Fault(pointer=pointer, detail=detail, code="too_large"))
    operations = costs.operations(spec, all_networks, shape)
    if operations > MAX_OPERATIONS:
        detail = f"would take {operations:.1e} floating-point operations; at most {MAX_OPERATIONS:.0e} are allowed"
        faults.append(Fault(pointer="#/epochs", detail=detail, code="too_large"))
    pixels = spec.samples.count * shape.pixels
    if pixels > MAX_SHOWN_PIXELS:
        max_count = max(1, MAX_SHOWN_PIXELS // shape.pixels)
        detail = f"must be at most {max_count} for images of {shape.described}"
        faults.append(Fault(pointer="#/samples/count", detail=detail, code="too_large", suggestion=str(max_count)))
    return faults


TABLE_PRESET: Final = "table"
"""The default preset for tables."""
PHOTO_PRESET: Final = "conv"
"""The default preset for photos and other uploads in colour."""


def task_faults(spec: Spec, task: Task, target: str | None) -> list[Fault]:
    """The fault of a classifier for a dataset whose target is a number, or of a regressor for classes.

    Args:
        target: the column with the number.
    """
    name, kind = spec.dataset.name, kinds.for_task(task).name
    if kinds.of(spec.kind).task in (None, task):
        return []
    found = "has classes" if task is Task.CLASSIFICATION else f"has a number to predict in each row ({target!r})"
    detail = f"a {spec.kind} cannot be trained: {name} {found}; train a {kind}"
    if task is Task.REGRESSION:
        detail += ", or upload the table again with the task classification"
    return [Fault(pointer="#/kind", detail=detail, code="unsuitable", suggestion=kind)]


def table_faults(spec: Spec, document: Mapping[str, Any], task: Task) -> list[Fault]:
    """The settings of a spec that do not apply to a table.

    Args:
        spec: resolved.
        task: what a network learns from the table.
        document: the spec as it was sent.
    """
    name, kind, suitable = spec.dataset.name, kinds.of(spec.kind), kinds.for_task(task).name
    if kind.task is None:
        detail = (
            f"a {kind.title} {kind.purpose}, and {name} is a table; train a {suitable}, or name a dataset of images"
        )
        return [Fault(pointer="#/kind", detail=detail, code="unsuitable", suggestion=suitable)]
    faults, layers = [], spec.trained_networks[0].layers
    indices = [n for n, layer in enumerate(layers) if layer.for_images or isinstance(layer, Reshape)]
    if indices and "layers" not in document:
        detail = f"preset {spec.preset} is for images, and {name} is a table; use preset {TABLE_PRESET}"
        faults.append(Fault(pointer="#/preset", detail=detail, code="unsuitable", suggestion=TABLE_PRESET))
    elif indices:
        detail = f"is for images, and {name} is a table; use dense layers"
        faults += [
            Fault(pointer=f"#/layers/{index}/type", detail=detail, code="unsuitable", suggestion="dense")
            for index in indices
        ]
    return faults + rooms.specs(spec.kind).table_faults(spec, document)
