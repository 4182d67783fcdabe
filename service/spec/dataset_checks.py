"""Checks that a spec fits its dataset: layers, losses, and the limits of one job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from service import kinds
from service.errors import Fault, SpecError
from service.schema.layer_shapes import Network, Shape
from service.spec.estimation import costs
from service.spec.estimation.networks import networks
from service.spec.schema import (
    MAX_MEMORY_BYTES,
    MAX_OPERATIONS,
    MAX_PARAMETERS,
    MAX_SHOWN_PIXELS,
    Activation,
    BatchNorm,
    ClassifierSpec,
    Conv2D,
    Conv2DTranspose,
    Dense,
    GanLossName,
    GanSpec,
    Kind,
    LossName,
    Optimizer,
    RegressorSpec,
    Reshape,
    Residual,
    Sgd,
    Size,
    Spec,
    shown,
)
from service.states import Task


def check_fit(spec: Spec, shape: Shape) -> list[Network]:
    """Check that layers fit each other, the data's shape and the loss, and that the job stays within its limits;
    returns the networks.

    Raises:
        SpecError: names every fault.
    """
    all_networks = networks(spec, shape)
    faults = [fault for network in all_networks for fault in network.faults]
    match spec:
        case ClassifierSpec():
            reason = f"one for each class of {spec.dataset.name}"
            faults += _check_last_layer(all_networks[0], (shape.classes,), (1, 1, shape.classes), reason)
            match spec.loss.name:
                case LossName.SOFTMAX_CROSS_ENTROPY:
                    faults += _check_activation(
                        all_networks[0], Activation.SOFTMAX, "required by softmax_cross_entropy"
                    )
                case LossName.BINARY_CROSS_ENTROPY:
                    faults += _check_activation(all_networks[0], Activation.SIGMOID, "required by binary_cross_entropy")
                case LossName.SQUARED_ERROR:
                    pass
            if spec.loss.class_weights is not None and spec.loss.name is not LossName.SOFTMAX_CROSS_ENTROPY:
                detail = f"is for softmax_cross_entropy; the loss is {spec.loss.name}"
                faults.append(Fault(pointer="#/loss/class_weights", detail=detail, code="unsuitable"))
            side = min(shape.rows, shape.columns)
            for field in ("max_shift", "cutout"):
                if getattr(spec.augmentation, field) >= side:
                    detail = f"must be less than {side}, the shorter side of the images of {spec.dataset.name}"
                    faults.append(Fault(pointer=f"#/augmentation/{field}", detail=detail, code="out_of_range"))
        case RegressorSpec():
            reason = f"the prediction of the target of {spec.dataset.name}"
            faults += _check_last_layer(all_networks[0], (1,), (1, 1, 1), reason)
            faults += _check_activation(all_networks[0], Activation.LINEAR, "since a target can have any value")
        case GanSpec():
            generator, discriminator = all_networks
            reason = f"one for each {'pixel' if shape.channels == 1 else 'colour of each pixel'} of {spec.dataset.name}"
            faults += _check_last_layer(generator, (shape.pixels,), shape.picture, reason)
            faults += _check_last_layer(discriminator, (1,), (1, 1, 1), "the output of a discriminator")
            last_activation = discriminator_end(spec.loss.name)
            faults += _check_activation(discriminator, last_activation, f"required by {spec.loss.name}")
            faults += _discriminator_faults(spec)
    for pointer, optimizer in optimizers(spec):
        if isinstance(optimizer, Sgd) and optimizer.nesterov and not optimizer.momentum:
            detail = "needs a momentum above 0"
            faults.append(Fault(pointer=f"{pointer}/nesterov", detail=detail, code="unsuitable"))
    possible = kinds.of(spec.kind).findings
    for index, code in enumerate(spec.health.stop_on):
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


def discriminator_end(loss: GanLossName) -> Activation:
    """The last activation of a discriminator that the loss requires."""
    return Activation.SIGMOID if loss is GanLossName.BINARY_CROSS_ENTROPY else Activation.LINEAR


_UNSMOOTHED: Final = (GanLossName.HINGE, GanLossName.WASSERSTEIN)
"""Losses without a target, to which label smoothing does not apply."""


def _discriminator_faults(spec: GanSpec) -> list[Fault]:
    """Discriminator settings that exclude or require each other."""
    discriminator, faults = spec.discriminator, []

    def fault(name: str, detail: str, suggestion: str | None = None) -> None:
        pointer = f"#/discriminator/{name}"
        faults.append(Fault(pointer=pointer, detail=detail, code="unsuitable", suggestion=suggestion))

    if discriminator.label_smoothing and spec.loss.name in _UNSMOOTHED:
        fault("label_smoothing", f"must be 0: {spec.loss.name} has no target to smooth", "0")
    if discriminator.critic_steps > 1 and discriminator.skip_every is not None:
        fault(
            "critic_steps",
            "cannot be combined with skip_every: they skip updates of different networks",
            "1",
        )
    bounded = discriminator.gradient_penalty or discriminator.spectral_norm
    if spec.loss.name is GanLossName.WASSERSTEIN and not bounded:
        fault("gradient_penalty", "must be above 0 for wasserstein (10 is usual), or set spectral_norm", "10")
    penalty = "gradient_penalty" if discriminator.gradient_penalty else "r1" if discriminator.r1 else None
    for index, layer in enumerate(discriminator.layers):
        inner_layers = [layer, *layer.layers] if isinstance(layer, Residual) else [layer]
        if penalty and any(isinstance(inner, BatchNorm) for inner in inner_layers):
            detail = f"cannot be combined with {penalty}: slopes would depend on the whole batch; use layer_norm"
            fault(f"layers/{index}/type", detail, "layer_norm")
    return faults


def _split_faults(spec: Spec, shape: Shape) -> list[Fault]:
    """Faults of the split into training and validation examples."""
    data, faults = spec.dataset, []

    def fault(name: str, detail: str, code: str = "unsuitable") -> None:
        faults.append(Fault(pointer=f"#/dataset/{name}", detail=detail, code=code))

    pool = shape.train_count + shape.validation_count
    if data.folds is not None:
        if data.validation_fraction is not None:
            fault("validation_fraction", "cannot be combined with folds: each fold is the validation part of one job")
        if isinstance(spec, GanSpec):
            fault("folds", "are for classifiers and regressors: a GAN has no accuracy to validate")
        if data.folds > pool:
            fault("folds", f"must be at most {pool}, the number of examples of {data.name}", "out_of_range")
        if data.fold is not None and data.fold >= data.folds:
            fault("fold", f"must be less than {data.folds}, the number of folds", "out_of_range")
    elif data.fold is not None:
        fault("fold", "requires folds, the number of folds")
    if data.split_seed is not None and data.folds is None and data.validation_fraction is None:
        fault("split_seed", "has an effect only with validation_fraction or folds")
    return faults


def optimizers(spec: Spec) -> list[tuple[str, Optimizer]]:
    """All optimizers that a spec names, each with its pointer."""
    by_pointer = [("#/optimizer", spec.optimizer)]
    if isinstance(spec, GanSpec):
        own_optimizers = {
            "#/generator/optimizer": spec.generator.optimizer,
            "#/discriminator/optimizer": spec.discriminator.optimizer,
        }
        by_pointer += [(pointer, optimizer) for pointer, optimizer in own_optimizers.items() if optimizer is not None]
    return by_pointer


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


def _check_last_layer(network: Network, row: Size, image: Size, reason: str) -> list[Fault]:
    """Faults of a network's last layer: dense must output ``row``, convolutions ``image``."""
    last = network.layers[-1]
    pointer = f"#/{network.where}/{len(network.layers) - 1}"
    match last:
        case Dense():
            if last.units == row[0]:
                return []
            detail, suggestion = f"must be {row[0]}, {reason}; it is {last.units}", str(row[0])
            return [Fault(pointer=f"{pointer}/units", detail=detail, code="wrong_shape", suggestion=suggestion)]
        case Conv2D() | Conv2DTranspose():
            size = network.layer_shapes[-1].size if len(network.layer_shapes) == len(network.layers) else image
            if size == image:
                return []
            detail = f"must end in {shown(image)}, {reason}; it ends in {shown(size)}"
            return [Fault(pointer=pointer, detail=detail, code="wrong_shape")]
        case _:
            return [
                Fault(
                    pointer=pointer,
                    detail="the last layer must be dense, conv2d or conv2d_transpose",
                    code="wrong_shape",
                )
            ]


def _check_activation(network: Network, activation: Activation, reason: str) -> list[Fault]:
    last = network.layers[-1]
    if not isinstance(last, Dense | Conv2D | Conv2DTranspose) or last.activation is activation:
        return []
    return [
        Fault(
            pointer=f"#/{network.where}/{len(network.layers) - 1}/activation",
            detail=f"must be {activation}, {reason}; it is {last.activation}",
            code="wrong_activation",
            suggestion=str(activation),
        )
    ]


TABLE_PRESET: Final = "table"
"""The default preset for tables."""
PHOTO_PRESET: Final = "conv"
"""The default preset for photos and other uploads in colour."""
_OFF: Final = {"max_shift": "0", "flip": "false", "cutout": "0"}
"""The augmentations, with the value that turns each off."""


SUITABLE: Final = {Task.CLASSIFICATION: Kind.CLASSIFIER, Task.REGRESSION: Kind.REGRESSOR}
"""The kind of training that learns a task."""


def task_faults(spec: Spec, task: Task, target: str | None) -> list[Fault]:
    """The fault of a classifier for a dataset whose target is a number, or of a regressor for classes.

    Args:
        target: the column with the number.
    """
    name, kind = spec.dataset.name, SUITABLE[task].value
    if isinstance(spec, GanSpec) or spec.kind == kind:
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
    name = spec.dataset.name
    if isinstance(spec, GanSpec):
        kind = SUITABLE[task].value
        detail = f"a GAN generates images, and {name} is a table; train a {kind}, or name a dataset of images"
        return [Fault(pointer="#/kind", detail=detail, code="unsuitable", suggestion=kind)]
    faults = []
    indices = [n for n, layer in enumerate(spec.layers) if layer.for_images or isinstance(layer, Reshape)]
    if indices and "layers" not in document:
        detail = f"preset {spec.preset} is for images, and {name} is a table; use preset {TABLE_PRESET}"
        faults.append(Fault(pointer="#/preset", detail=detail, code="unsuitable", suggestion=TABLE_PRESET))
    elif indices:
        detail = f"is for images, and {name} is a table; use dense layers"
        faults += [
            Fault(pointer=f"#/layers/{index}/type", detail=detail, code="unsuitable", suggestion="dense")
            for index in indices
        ]
    detail = f"is for images, and {name} is a table"
    for field, off in _OFF.items():
        if isinstance(spec, ClassifierSpec) and _is_on(spec, document, field):
            pointer = f"#/augmentation/{field}"
            faults.append(Fault(pointer=pointer, detail=detail, code="unsuitable", suggestion=off))
    return faults


def _is_on(spec: ClassifierSpec, document: Mapping[str, Any], field: str) -> bool:
    """Whether the document itself requests this augmentation; the preset's is ignored for tables."""
    sent = document.get("augmentation")
    return isinstance(sent, dict) and field in sent and bool(getattr(spec.augmentation, field))
