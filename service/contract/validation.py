"""From the bytes a person sent to a spec with every value filled in, or to all faults at once."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar, assert_never, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from rapidfuzz import process

from service.contract import costs, health
from service.contract.architecture import Network, Size, networks, shown
from service.contract.errors import Fault, MalformedJson, SpecError
from service.contract.presets import DEFAULT_PRESET, PRESETS
from service.contract.spec import (
    ADDED_LATER,
    MAX_MEMORY_BYTES,
    MAX_OPERATIONS,
    MAX_PARAMETERS,
    MAX_SHOWN_PIXELS,
    MAX_UNITS,
    Activation,
    ClassifierSpec,
    Conv2D,
    Dense,
    GanSpec,
    Kind,
    Layer,
    LossName,
    Optimizer,
    Part,
    Sgd,
    Spec,
)

MAX_DEPTH: Final = 32
MAX_NAMES: Final = 10_000
"""Fields of all objects of a document together; the largest spec has some hundreds."""
MAX_FAULTS: Final = 100
"""Faults that are described; the others are only counted."""
_SHOWN_NAME: Final = 80
_MODELS: Final[dict[Kind, type[ClassifierSpec] | type[GanSpec]]] = {
    Kind.CLASSIFIER: ClassifierSpec,
    Kind.GAN: GanSpec,
}
_NOT_HASHED: Final = {"name", "tags", "priority", "preset"}
"""Fields that do not change what is computed."""
_WITHOUT_WEIGHTS: Final = {"activation", "negative_slope", "rate", "momentum", "epsilon"}
"""Fields of a layer that may change while its weights stay."""

B = TypeVar("B", bound=Part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a spec must fit: the rows and columns of a data set's pictures, its classes, its training pictures."""

    rows: int
    columns: int
    classes: int
    train_count: int

    @property
    def pixels(self) -> int:
        """Of one picture."""
        return self.rows * self.columns


def parse_json(body: bytes) -> Any:
    """Read JSON as RFC 8259 has it and no more: no NaN, no repeated keys, no number beyond a float.

    Raises:
        MalformedJson: with the line and the column, counted from 1.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        before = body[: error.start].decode("utf-8", "replace")
        raise MalformedJson("the body is not UTF-8", *_position(before, len(before))) from error

    def refuse(detail: str, shown: str) -> MalformedJson:
        return MalformedJson(detail, *_position(text, max(text.find(shown), 0)))

    def number(literal: str) -> float:
        value = float(literal)
        if not math.isfinite(value):
            raise refuse(f"{literal} is too large for a number", literal)
        return value

    def constant(literal: str) -> float:
        raise refuse(f"{literal} is not JSON; leave the field out or use null", literal)

    def integer(literal: str) -> int:
        if len(literal) > 20:
            raise refuse("an integer has more than 20 digits", literal)
        return int(literal)

    names_left = MAX_NAMES

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal names_left
        names_left -= len(pairs)
        if names_left < 0:
            raise MalformedJson(f"the document has more than {MAX_NAMES:,} fields", 1, 1)
        document: dict[str, Any] = {}
        for name, value in pairs:
            if name in document:
                shown = name if len(name) <= _SHOWN_NAME else f"{name[:_SHOWN_NAME]}…"
                raise refuse(f"the key {shown!r} appears twice in one object", json.dumps(name))
            document[name] = value
        return document

    try:
        document = json.loads(
            text,
            parse_float=number,
            parse_constant=constant,
            parse_int=integer,
            object_pairs_hook=unique,
        )
    except json.JSONDecodeError as error:
        raise MalformedJson(f"not valid JSON: {error.msg}", error.lineno, error.colno) from error
    except RecursionError as error:
        raise MalformedJson(f"nested more than {MAX_DEPTH} deep", 1, 1) from error
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise refuse("a string holds half of a surrogate pair", "\\ud") from error
    if _depth(document) > MAX_DEPTH:
        raise MalformedJson(f"nested more than {MAX_DEPTH} deep", 1, 1)
    return document


def resolve(document: Any) -> Spec:
    """Fill a spec's gaps from its preset and check every field.

    Args:
        document: parsed JSON, as sent.

    Raises:
        SpecError: names every fault, each with a pointer into the document.
    """
    if not isinstance(document, dict):
        raise SpecError([Fault(pointer="#", detail="a spec is a JSON object", code="wrong_type")])
    faults: list[Fault] = []
    found = document.get("kind")
    if "kind" not in document:
        listed = ", ".join(Kind)
        raise SpecError([Fault(pointer="#/kind", detail=f"is missing; one of {listed}", code="missing")])
    if found not in list(Kind):
        raise SpecError([_unknown("kind", found, list(Kind))])
    kind = Kind(found)
    preset = document.get("preset", DEFAULT_PRESET[kind])
    if not isinstance(preset, str) or preset not in PRESETS[kind]:
        faults.append(_unknown("preset", preset, list(PRESETS[kind])))
        preset = DEFAULT_PRESET[kind]  # so that the other faults can be found too
    merged = _merge({**PRESETS[kind][preset]}, document) | {"kind": kind, "preset": preset}
    model = _MODELS[kind]
    try:
        # By way of JSON, since strict mode takes lists and enumerations from JSON only.
        spec = model.model_validate_json(json.dumps(merged))
    except ValidationError as error:
        faults += _faults(model, error, merged)
        raise SpecError(faults, total=len(faults) + max(error.error_count() - MAX_FAULTS, 0)) from error
    if faults:
        raise SpecError(faults)
    return spec


def read_resolved(document: dict[str, Any]) -> Spec:
    """A resolved spec back from the database."""
    return _MODELS[Kind(document["kind"])].model_validate_json(json.dumps(document))


def read_body(model: type[B], document: Any) -> B:
    """A request's body that is no spec.

    Raises:
        SpecError: names every fault.
    """
    if not isinstance(document, dict):
        raise SpecError([Fault(pointer="#", detail="must be a JSON object", code="wrong_type")])
    try:
        return model.model_validate_json(json.dumps(document))
    except ValidationError as error:
        raise SpecError(_faults(model, error, document), total=error.error_count()) from error


def derive(resolved: dict[str, Any], overrides: dict[str, Any], *, epoch: int) -> Spec:
    """The spec of a fork: its parent's, with other values here and there.

    The networks must stay as they are, since the checkpoint's weights go into them; what has no weights
    (activations, rates of dropout, losses, optimizers, data of the same shape) may change.

    Args:
        resolved: the parent's resolved spec.
        epoch: the fork goes on after this one.

    Raises:
        SpecError: names every fault, each with a pointer into ``overrides``.
    """
    faults = [
        Fault(pointer=f"#/{name}", detail="cannot be changed in a fork", code="unsuitable")
        for name in ("kind", "preset")
        if overrides.get(name, resolved[name]) != resolved[name]
    ]
    if faults:
        raise SpecError(faults)
    spec = resolve(_merge(resolved, overrides))
    if spec.epochs <= epoch:
        detail = f"must be more than {epoch}: the fork goes on after that epoch; it is {spec.epochs}"
        faults.append(Fault(pointer="#/epochs", detail=detail, code="out_of_range"))
    faults += _changed_networks(read_resolved(resolved), spec)
    if faults:
        raise SpecError(faults)
    return spec


def suit(spec: Spec, document: dict[str, Any], shape: Shape) -> Spec:
    """The spec for data of this shape: a preset's last layer gets as many units as the data asks for.

    Presets are written for MNIST. Layers that ``document``, as it was sent, names itself stay as they are.
    """
    match spec:
        case ClassifierSpec():
            if "layers" in document:
                return spec
            return spec.model_copy(update={"layers": _ending_in(shape.classes, spec.layers)})
        case GanSpec():
            made = document.get("generator")
            if isinstance(made, dict) and "layers" in made:
                return spec
            layers = _ending_in(shape.pixels, spec.generator.layers)
            return spec.model_copy(update={"generator": spec.generator.model_copy(update={"layers": layers})})
        case _:
            assert_never(spec)


def _ending_in(units: int, layers: Sequence[Layer]) -> list[Layer]:
    last = layers[-1]
    if not isinstance(last, Dense) or not 1 <= units <= MAX_UNITS:
        return list(layers)
    return [*layers[:-1], last.model_copy(update={"units": units})]


def check_fit(spec: Spec, shape: Shape) -> None:
    """Check that layers fit each other, end in the data's shape, and suit the losses.

    Raises:
        SpecError: names every fault.
    """
    found = networks(spec, shape.rows, shape.columns)
    faults = [fault for network in found for fault in network.faults]
    match spec:
        case ClassifierSpec():
            why = f"one for each class of {spec.dataset.name}"
            faults += _check_end(found[0], (shape.classes,), (1, 1, shape.classes), why)
            match spec.loss.name:
                case LossName.SOFTMAX_CROSS_ENTROPY:
                    faults += _check_activation(found[0], Activation.SOFTMAX, "as softmax_cross_entropy asks")
                case LossName.BINARY_CROSS_ENTROPY:
                    faults += _check_activation(found[0], Activation.SIGMOID, "as binary_cross_entropy asks")
                case LossName.SQUARED_ERROR:
                    pass
            side = min(shape.rows, shape.columns)
            if spec.augmentation.max_shift >= side:
                detail = f"must be less than {side}, the smaller side of {spec.dataset.name}'s pictures"
                faults.append(Fault(pointer="#/augmentation/max_shift", detail=detail, code="out_of_range"))
        case GanSpec():
            made, judged = found
            why = f"one for each pixel of {spec.dataset.name}"
            faults += _check_end(made, (shape.pixels,), (shape.rows, shape.columns, 1), why)
            faults += _check_end(judged, (1,), (1, 1, 1), "the one answer of a discriminator")
            faults += _check_activation(judged, Activation.SIGMOID, "as binary_cross_entropy asks")
    for pointer, optimizer in optimizers(spec):
        if isinstance(optimizer, Sgd) and optimizer.nesterov and not optimizer.momentum:
            detail = "needs a momentum above 0"
            faults.append(Fault(pointer=f"{pointer}/nesterov", detail=detail, code="unsuitable"))
    looked_for = health.codes(Kind(spec.kind))
    for number, code in enumerate(spec.health.stop_on):
        if code not in looked_for:
            detail = f"is not looked for in a {spec.kind}; what is: {', '.join(looked_for)}"
            faults.append(Fault(pointer=f"#/health/stop_on/{number}", detail=detail, code="unsuitable"))
    low, high = spec.dataset.scale
    if low >= high:
        faults.append(Fault(pointer="#/dataset/scale", detail="must rise: [low, high]", code="out_of_range"))
    if spec.batch_size > shape.train_count:
        detail = f"must be at most {shape.train_count}, the pictures of {spec.dataset.name}"
        faults.append(Fault(pointer="#/batch_size", detail=detail, code="out_of_range"))
    faults += _too_costly(spec, shape)
    if faults:
        raise SpecError(faults)


def optimizers(spec: Spec) -> list[tuple[str, Optimizer]]:
    """All optimizers that a spec names, each with its pointer."""
    found = [("#/optimizer", spec.optimizer)]
    if isinstance(spec, GanSpec):
        parts = {
            "#/generator/optimizer": spec.generator.optimizer,
            "#/discriminator/optimizer": spec.discriminator.optimizer,
        }
        found += [(pointer, optimizer) for pointer, optimizer in parts.items() if optimizer is not None]
    return found


def _too_costly(spec: Spec, shape: Shape) -> list[Fault]:
    """What goes beyond what one job may take, each with the field that makes the most of it."""
    faults = []
    parameters = costs.parameters(spec, shape)
    if parameters > MAX_PARAMETERS:
        detail = f"the networks have {parameters:,} parameters; at most {MAX_PARAMETERS:,} are allowed"
        faults.append(Fault(pointer="#", detail=detail, code="too_large"))
    peak = costs.peak_bytes(spec, shape)
    if peak > MAX_MEMORY_BYTES:
        shares = {"#/dataset/name": costs.data_bytes(shape), "#/batch_size": costs.activation_bytes(spec, shape)}
        most = max(shares, key=lambda pointer: shares[pointer])
        pointer = most if shares[most] > peak / 2 else "#"
        detail = f"would take {peak / 2**30:,.1f} GiB of memory; at most {MAX_MEMORY_BYTES / 2**30:.0f} are allowed"
        faults.append(Fault(pointer=pointer, detail=detail, code="too_large"))
    operations = costs.operations(spec, shape)
    if operations > MAX_OPERATIONS:
        detail = f"would take {operations:.1e} floating-point operations; at most {MAX_OPERATIONS:.0e} are allowed"
        faults.append(Fault(pointer="#/epochs", detail=detail, code="too_large"))
    shown = spec.samples.count * shape.pixels
    if shown > MAX_SHOWN_PIXELS:
        most_shown = max(1, MAX_SHOWN_PIXELS // shape.pixels)
        detail = f"must be at most {most_shown} for pictures of {shape.rows} x {shape.columns}"
        faults.append(Fault(pointer="#/samples/count", detail=detail, code="too_large", suggestion=str(most_shown)))
    return faults


def _check_end(network: Network, row: Size, image: Size, why: str) -> list[Fault]:
    """What is wrong with a network's last layer: dense must end in ``row``, conv2d in ``image``."""
    last = network.layers[-1]
    pointer = f"#/{network.where}/{len(network.layers) - 1}"
    match last:
        case Dense():
            if last.units == row[0]:
                return []
            detail, suggestion = f"must be {row[0]}, {why}; it is {last.units}", str(row[0])
            return [Fault(pointer=f"{pointer}/units", detail=detail, code="wrong_shape", suggestion=suggestion)]
        case Conv2D():
            size = network.placed[-1].size if len(network.placed) == len(network.layers) else image
            if size == image:
                return []
            detail = f"must end in {shown(image)}, {why}; it ends in {shown(size)}"
            return [Fault(pointer=pointer, detail=detail, code="wrong_shape")]
        case _:
            return [Fault(pointer=pointer, detail="the last layer must be dense or conv2d", code="wrong_shape")]


def _check_activation(network: Network, activation: Activation, why: str) -> list[Fault]:
    last = network.layers[-1]
    if not isinstance(last, Dense | Conv2D) or last.activation is activation:
        return []
    return [
        Fault(
            pointer=f"#/{network.where}/{len(network.layers) - 1}/activation",
            detail=f"must be {activation}, {why}; it is {last.activation}",
            code="wrong_activation",
            suggestion=str(activation),
        )
    ]


def canonical(document: Any) -> str:
    """The one JSON text of a document: keys sorted, no blanks, so that equal documents have equal text."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def spec_hash(spec: Spec) -> str:
    """SHA-256 over everything in a spec that changes what is computed; it outlives the fields that come later."""
    document = _without_later_defaults(spec, spec.model_dump(mode="json", exclude=_NOT_HASHED))
    return "sha256:" + hashlib.sha256(canonical(document).encode()).hexdigest()


def _changed_networks(before: Spec, after: Spec) -> list[Fault]:
    """What of the networks differs, so that weights of one do not go into the other."""

    def flat(spec: Spec) -> dict[str, Any]:
        document = spec.model_dump(mode="json")
        found: dict[str, Any] = {"dtype": document["dtype"]}
        if "latent" in document:
            found["latent/dim"] = document["latent"]["dim"]
        for where in ("", "generator/", "discriminator/"):
            holder = document.get(where.rstrip("/"), {}) if where else document
            for place, layer in enumerate(holder.get("layers", [])):
                shaped = {name: value for name, value in layer.items() if name not in _WITHOUT_WEIGHTS}
                found |= {f"{where}layers/{place}/{name}": value for name, value in shaped.items()}
        return found

    old, new = flat(before), flat(after)
    detail = "must stay {}, as in the checkpoint whose weights the fork takes over; it is {}"
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


def _without_later_defaults(part: Any, dumped: Any) -> Any:
    """``part`` as it was ``dumped``, without fields that were added later and have their defaults."""
    if isinstance(part, list):
        return [_without_later_defaults(*pair) for pair in zip(part, dumped, strict=True)]
    if not isinstance(part, Part):
        return dumped
    fields = type(part).model_fields
    return {
        name: _without_later_defaults(getattr(part, name), value)
        for name, value in dumped.items()
        if ADDED_LATER not in fields[name].metadata or getattr(part, name) != fields[name].default
    }


def _position(text: str, offset: int) -> tuple[int, int]:
    line = text.count("\n", 0, offset) + 1
    return line, offset - (text.rfind("\n", 0, offset) + 1) + 1


def _depth(document: Any) -> int:
    depth, level = 0, [document]
    while level:
        depth += 1
        below: list[Any] = []
        for item in level:
            below.extend(item.values() if isinstance(item, dict) else item if isinstance(item, list) else ())
        level = below
    return depth - 1


def _unknown(name: str, value: Any, choices: Sequence[str]) -> Fault:
    return Fault(
        pointer=f"#/{name}",
        detail=f"must be one of {', '.join(choices)}, not {json.dumps(value)[:80]}",
        code=f"unknown_{name}",
        suggestion=_closest(value, choices),
    )


def _closest(value: Any, choices: Sequence[str]) -> str | None:
    if not isinstance(value, str):
        return None
    found = process.extractOne(value, choices, score_cutoff=60)
    return str(found[0]) if found else None


def _merge(preset: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Overlay ``given``, object by object. An object that names another variant replaces the preset's whole:
    the options of Adam are no options of SGD."""
    merged = dict(preset)
    for name, value in given.items():
        below = preset.get(name)
        if isinstance(value, dict) and isinstance(below, dict):
            other_variant = name != "dataset" and "name" in value and value["name"] != below.get("name")
            merged[name] = value if other_variant else _merge(below, value)
        else:
            merged[name] = value
    return merged


def _faults(model: type[BaseModel], error: ValidationError, document: Any) -> list[Fault]:
    """The first of the faults: describing one takes far longer than finding it."""
    return [_fault(model, detail, document) for detail in error.errors(include_url=False)[:MAX_FAULTS]]


def _fault(model: type[BaseModel], error: ErrorDetails, document: Any) -> Fault:
    names, choices = _locate(model, error["loc"])
    pointer = "#" + "".join("/" + str(name).replace("~", "~0").replace("/", "~1") for name in names)
    context = error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            suggestion = _closest(str(names[-1]), choices)
            hint = f"; did you mean {suggestion!r}?" if suggestion else f"; known are {', '.join(choices)}"
            return Fault(pointer=pointer, detail=f"unknown field{hint}", code="unknown_field", suggestion=suggestion)
        case "missing":
            return Fault(pointer=pointer, detail="is missing", code="missing")
        case "model_type" | "model_attributes_type":
            known = ", ".join(_locate(model, (*error["loc"], ""))[1])
            return Fault(pointer=pointer, detail=f"must be an object; its fields are {known}", code="wrong_type")
        case "string_pattern_mismatch":
            detail = "has a character that is not allowed here: a control character, or a comma in a tag"
            return Fault(pointer=pointer, detail=detail, code="out_of_range")
        case "union_tag_not_found":
            field = str(context.get("discriminator", "name")).strip("'")
            return Fault(pointer=f"{pointer}/{field}", detail="is missing", code="missing")
        case "union_tag_invalid":
            field = str(context["discriminator"]).strip("'")
            field = field if field.isidentifier() and field != "_tag" else "type"
            tags = [tag.strip(" '") for tag in str(context["expected_tags"]).split(",")]
            return Fault(
                pointer=f"{pointer}/{field.removesuffix('()')}",
                detail=f"must be one of {', '.join(tags)}",
                code="unknown_value",
                suggestion=_closest(context["tag"], tags),
            )
        case "enum" | "literal_error":
            values = [value.strip(" '") for value in str(context["expected"]).replace(" or ", ", ").split(",")]
            return Fault(
                pointer=pointer,
                detail=f"must be one of {', '.join(values)}",
                code="unknown_value",
                suggestion=_closest(error["input"], values),
            )
        case kind:
            wrong_type = kind.endswith(("_type", "_parsing"))
            detail = error["msg"].removeprefix("Input ").removeprefix("should ")
            detail = detail if wrong_type or not detail.startswith("be ") else f"must {detail}"
            return Fault(
                pointer=pointer,
                detail=f"must {detail}" if wrong_type else detail,
                code="wrong_type" if wrong_type else "out_of_range",
            )


def _locate(model: type[BaseModel], location: Sequence[int | str]) -> tuple[list[int | str], list[str]]:
    """The path into the document, without the tags that pydantic adds for variants, and the names of the
    fields that exist where the path ends."""
    path: list[int | str] = []
    here: list[type[BaseModel]] = [model]
    for position, name in enumerate(location):
        if isinstance(name, int):
            path.append(name)
            continue
        fields = [found.model_fields[name].annotation for found in here if name in found.model_fields]
        tagged = [found for found in here if name in _tags(found)]
        if fields:
            path.append(name)
            if position < len(location) - 1:
                here = [found for annotation in fields for found in _models(annotation)]
        elif tagged:
            here = tagged
        else:
            path.append(name)
    return path, sorted({name for found in here for name in found.model_fields})


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return [annotation]
    return [found for argument in get_args(annotation) for found in _models(argument)]


def _tags(model: type[BaseModel]) -> tuple[str, ...]:
    for name in ("name", "type"):
        field = model.model_fields.get(name)
        if field is not None and get_origin(field.annotation) is Literal:
            return get_args(field.annotation)
    return ()
