"""A spec against the data sets that there are: everything that can be wrong with it, and what it would cost."""

from __future__ import annotations

from typing import Any

from service import datasets
from service.contract import validation
from service.contract.architecture import Shape
from service.contract.errors import Fault, SpecError
from service.contract.spec import Spec
from service.web.services import owner, services


def check(document: Any) -> tuple[Spec, Shape]:
    """Everything that can be wrong with a spec, at once.

    Raises:
        SpecError: as it says.
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
    fits: Shape | None = None
    if name is not None:
        try:
            fits = _shape_of(_described(name))
        except datasets.DatasetNotFound as error:
            known = f"known are {', '.join(error.known)}"
            faults.append(_dataset_fault(error.code, f"there is no such data set; {known}", error.suggestion))
        except datasets.DatasetBroken as error:
            faults.append(_dataset_fault(error.code, f"its files are broken: {error.path.name}: {error.reason}"))
    if faults or spec is None or fits is None:
        raise validation.as_sent(SpecError(faults, total=len(faults) + undescribed), document)
    spec = validation.suit(spec, document, fits)
    try:
        validation.check_fit(spec, fits)
    except SpecError as error:
        raise validation.as_sent(error, document) from error
    return spec, fits


def shape(name: str) -> Shape | None:
    """The shape of a data set, ``None`` where it is gone by now."""
    try:
        info = services().shelf.describe(name, owner())
    except datasets.DatasetError:
        return None
    return _shape_of(info)


def _shape_of(info: datasets.DatasetInfo) -> Shape:
    rows, columns = info.image_shape
    return Shape(rows=rows, columns=columns, classes=info.classes, train_count=info.train_count)


def _described(name: str) -> datasets.DatasetInfo:
    """The data set; of one that this package knows nobody needs to look at its files."""
    known = datasets.BUILT_IN.get(name)
    return known.info if known is not None else services().shelf.describe(name, owner())


def _dataset_name(document: Any) -> str | None:
    dataset = document.get("dataset") if isinstance(document, dict) else None
    name = dataset.get("name") if isinstance(dataset, dict) else dataset
    return name if isinstance(name, str) and name else None


def _dataset_fault(code: str, detail: str, suggestion: str | None = None) -> Fault:
    hint = f"; did you mean {suggestion!r}?" if suggestion else ""
    return Fault(pointer="#/dataset/name", detail=detail + hint, code=code, suggestion=suggestion)
