"""Validates documents sent by users: resolves a spec to a value in every field, or reports all faults at once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Self, TypeVar

from pydantic import ValidationError

from service import kinds
from service.errors import Fault, SpecError
from service.kinds import rooms
from service.spec.faults import describe, not_one_of
from service.spec.fields import closest, shorthand
from service.spec.presets.definitions import current_name
from service.spec.schema import (
    SPEC_MODELS,
    Constant,
    JobSpec,
    Kind,
    Spec,
    Step,
    StrictModel,
)
from service.spec.strict_json import canonical, overlay
from service.states import JobKind

_FIELDS: Final = frozenset(name for model in SPEC_MODELS.values() for name in model.model_fields)
NOT_HASHED: Final = frozenset({"name", "tags", "priority", "preset", "reuse", "budget"})
"""Fields that do not affect the result."""
NOT_IN_FILES: Final = NOT_HASHED - {"preset"}
"""Fields of the job that its checkpoints do not have: who shares a model shares neither names nor tags. Readers need
the preset, which is a public name."""
_WITHOUT_WEIGHTS: Final = {"activation", "negative_slope", "rate", "momentum", "epsilon"}
"""Fields of a layer on which its weights do not depend; a fork may change them."""

B = TypeVar("B", bound=StrictModel)


def resolve(document: Any) -> Spec:
    """Complete a spec from its preset and check every field.

    Args:
        document: parsed JSON, as sent.

    Raises:
        SpecError: lists every fault, each with a pointer into the document.
    """
    if not isinstance(document, dict):
        raise SpecError([Fault(pointer="#", detail="must be a JSON object", code="wrong_type")])
    faults: list[Fault] = []
    if "kind" not in document:
        detail = f"is missing; use one of {', '.join(JobKind)}"
        likely = next((name for name in document if closest(name, ["kind"]) and name not in _FIELDS), None)
        detail += f"; did you mean 'kind' by {likely!r}?" if likely else ""
        raise SpecError([Fault(pointer="#/kind", detail=detail, code="missing")])
    kind_name = document["kind"]
    if not trains(document):
        detail = f"a {kind_name} trains nothing: it cannot be swept or forked; submit it with POST /jobs"
        raise SpecError([Fault(pointer="#/kind", detail=detail, code="unsuitable")])
    if kind_name not in list(Kind):
        faults.append(not_one_of("#/kind", kind_name, list(JobKind), code="unknown_kind"))
        if faults[0].suggestion not in list(Kind):
            raise SpecError(faults)
        kind_name = faults[0].suggestion  # continue, to find the other faults too
    kind, specs = Kind(kind_name), rooms.specs(kind_name)
    preset = document.get("preset", specs.default_preset)
    preset = current_name(preset) if isinstance(preset, str) else preset
    if not isinstance(preset, str) or preset not in specs.presets:
        faults.append(not_one_of("#/preset", preset, list(specs.presets), code="unknown_preset"))
        preset = specs.default_preset
    model = specs.model
    merged = overlay({**specs.presets[preset]}, shorthand(model, document)) | {"kind": kind, "preset": preset}
    try:
        # Through JSON, because strict mode accepts lists and enumerations only from JSON.
        spec = model.model_validate_json(json.dumps(merged))
    except ValidationError as error:
        others = [candidate for candidate in SPEC_MODELS.values() if candidate is not model]
        total = len(faults) + error.error_count()
        faults += describe(model, error, merged, others=others)
        raise relocate_faults(SpecError(faults, total=total), document) from error
    if faults:
        raise SpecError(faults)
    return _with_split_seed(spec)


def _with_split_seed(spec: Spec) -> Spec:
    """Record the seed of the split: a fork with another seed must not validate on examples it was trained on."""
    data = spec.dataset
    if data.split_seed is not None or (data.validation_fraction is None and data.folds is None):
        return spec
    return spec.model_copy(update={"dataset": data.model_copy(update={"split_seed": spec.seed})})


def read_resolved(document: dict[str, Any]) -> Spec:
    """Read the resolved spec of a training from the database."""
    return SPEC_MODELS[Kind(document["kind"])].model_validate_json(json.dumps(document))


def stored(spec: JobSpec) -> dict[str, Any]:
    """A resolved spec as the database keeps it, without the budget, which has a column of its own and may change: the
    previous release refuses a spec with a field that it does not know, even if it is null."""
    return spec.model_dump(mode="json", exclude={"budget"})


def trains(document: Any) -> bool:
    """Whether a document that was sent is the spec of a training, unless it has faults."""
    kind_name = document.get("kind") if isinstance(document, dict) else None
    return not isinstance(kind_name, str) or kinds.of(kind_name).trains


def read_body(model: type[B], document: Any) -> B:
    """Validate a request body other than a spec.

    Raises:
        SpecError: lists every fault.
    """
    if not isinstance(document, dict):
        raise SpecError([Fault(pointer="#", detail="must be a JSON object", code="wrong_type")])
    try:
        return model.model_validate_json(json.dumps(document))
    except ValidationError as error:
        raise SpecError(describe(model, error, document), total=error.error_count()) from error


def derive(resolved: dict[str, Any], overrides: dict[str, Any], *, epoch: int) -> Spec:
    """The spec of a fork: its parent's with ``overrides``.

    The shapes of all weights must stay the same, because the fork loads them from the checkpoint; for the same reason,
    another initializer would change nothing. Everything else (activations, dropout rates, losses, optimizers, datasets
    of the same shape) may change.

    Args:
        resolved: the parent's resolved spec.
        epoch: the epoch of the checkpoint that the fork continues from.

    Raises:
        SpecError: lists every fault, each with a pointer into ``overrides``.
    """
    faults = [
        Fault(pointer=f"#/{name}", detail="cannot be changed in a fork", code="unsuitable")
        for name in ("kind", "preset")
        if overrides.get(name, resolved[name]) != resolved[name]
    ]
    if faults:
        raise SpecError(faults)
    try:
        spec = resolve(overlay(resolved, shorthand(SPEC_MODELS[Kind(resolved["kind"])], overrides)))
    except SpecError as error:
        raise relocate_faults(error, overrides) from error
    if spec.epochs <= epoch:
        detail = f"must be greater than {epoch}, the epoch that the fork continues from; it is {spec.epochs}"
        faults.append(Fault(pointer="#/epochs", detail=detail, code="out_of_range"))
    parent = read_resolved(resolved)
    if spec.initializer != parent.initializer:
        detail = (
            "cannot be changed in a fork, whose weights come from the checkpoint; for other first weights, train a "
        )
        detail += "new job with this spec (tapeline train, or New job with this spec)"
        faults.append(Fault(pointer="#/initializer", detail=detail, code="unsuitable"))
    faults += _changed_networks(parent, spec)
    if faults:
        raise SpecError(faults)
    return spec


def overlaid(spec: Spec, settings: Mapping[str, Any]) -> Spec:
    """A resolved spec with other settings.

    Raises:
        SpecError: lists every fault of fields.
    """
    return resolve(overlay(spec.model_dump(mode="json"), dict(settings)))


def relocate_faults(error: SpecError, document: Any) -> SpecError:
    """The error with pointers into the document as it was sent, before shorthands were expanded."""
    faults = [replace(fault, pointer=_existing_pointer(fault.pointer, document)) for fault in error.faults]
    return SpecError(faults, total=error.total)


def _existing_pointer(pointer: str, document: Any) -> str:
    parent, _, last = pointer.rpartition("/")
    if last != "name":
        return pointer
    value = document
    for step in parent.split("/")[1:]:
        value = value.get(step) if isinstance(value, dict) else None
    return parent if isinstance(value, str) else pointer


def spec_hash(spec: JobSpec) -> str:
    """SHA-256 over a resolved spec, without its name, tags, priority, preset and reuse. That of a prediction covers the
    checkpoint, however it was named."""
    return resolved_hash(spec.hashed(stored(spec)))


def document_for_files(spec: Spec) -> dict[str, Any]:
    """A resolved spec as checkpoints have it; ``read_resolved`` reads it, with the defaults of the fields left out."""
    return spec.model_dump(mode="json", exclude=set(NOT_IN_FILES))


def resolved_hash(resolved: Mapping[str, Any], *, without: Collection[str] = NOT_HASHED) -> str:
    """SHA-256 over a resolved spec as a document, without some of its fields."""
    document = {name: value for name, value in resolved.items() if name not in without}
    return "sha256:" + hashlib.sha256(canonical(document).encode()).hexdigest()


def _changed_networks(before: Spec, after: Spec) -> list[Fault]:
    """The differences between two networks that make their weights incompatible."""

    def flat(spec: Spec) -> dict[str, Any]:
        document = spec.model_dump(mode="json")
        fields: dict[str, Any] = {"dtype": document["dtype"]}
        fields |= spec.weight_settings
        for network in spec.trained_networks:
            layers = document[network.name]["layers"] if network.name else document["layers"]
            fields |= _weight_fields(f"{network.name}/layers".lstrip("/"), layers)
        return fields

    old, new = flat(before), flat(after)
    detail = "must stay {}, as in the checkpoint that the fork continues from; it is {}"
    return [
        Fault(
            pointer=f"#/{name}",
            detail=detail.format(json.dumps(old.get(name)), json.dumps(new.get(name))),
            code="wrong_shape",
            suggestion=str(old[name]) if old.get(name) is not None else None,
        )
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    ]


def _weight_fields(prefix: str, layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The fields of layers, including inner ones, on which their weights depend."""
    fields: dict[str, Any] = {}
    for index, layer in enumerate(layers):
        for name, value in layer.items():
            pointer = f"{prefix}/{index}/{name}"
            if name == "layers":
                fields |= _weight_fields(pointer, value)
            elif name not in _WITHOUT_WEIGHTS:
                fields[pointer] = value
    return fields


_NOT_IN_PREFIX: Final = NOT_HASHED | {"epochs"}


def prefix_hash(resolved: Mapping[str, Any]) -> str:
    """SHA-256 over everything in a resolved spec that affects the computation, except for the number of epochs."""
    return resolved_hash(resolved, without=_NOT_IN_PREFIX)


@dataclass(frozen=True, slots=True)
class StoredSpec:
    """A resolved spec as the database keeps it, and its digests. Both take time: they are computed once per job."""

    document: dict[str, Any]
    hash: str
    """``spec_hash``."""
    prefix_hash: str

    @classmethod
    def of(cls, spec: JobSpec) -> Self:
        """Compute them."""
        document = stored(spec)
        return cls(document, resolved_hash(spec.hashed(document)), prefix_hash(document))


def is_independent_of_length(spec: Spec) -> bool:
    """Whether an epoch has the same bits no matter how many follow: no schedule spans the whole run."""
    return all(isinstance(network.schedule, Constant | Step) for network in spec.trained_networks)


def is_independent_of_position(spec: Spec, epoch: int) -> bool:
    """Whether an epoch's record is the same whether or not it is the last epoch.

    The last epoch always has samples and scores; other epochs have them only when they are due.
    """
    return epoch % spec.samples.every_epochs == 0 and epoch % spec.scored_every_epochs == 0
