"""Translates pydantic's errors into faults with JSON pointers and suggestions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from service.errors import Fault
from service.spec.fields import Fields, Model, closest, models_of, tags_of
from service.spec.strict_json import pointer_step
from service.wording import counted

MAX_FAULTS: Final = 100
"""Maximum number of faults that are described; further ones are only counted."""


def not_one_of(pointer: str, value: Any, choices: Sequence[str], *, code: str = "unknown_value") -> Fault:
    """The fault for a value that is not one of the choices of its field."""
    suggestion = closest(value, choices)
    hint = f"; did you mean {suggestion!r}?" if suggestion else ""
    detail = f"must be one of {', '.join(choices)}, not {json.dumps(value)[:80]}{hint}"
    return Fault(pointer=pointer, detail=detail, code=code, suggestion=suggestion)


def describe(model: Model, error: ValidationError, document: Any, *, others: Sequence[Model] = ()) -> list[Fault]:
    """The first ``MAX_FAULTS`` faults of an error. Describing a fault takes far longer than finding it.

    Args:
        model: the model that the document was validated against.
        document: parsed JSON.
        others: models of the other values of ``kind``, for suggestions.
    """
    fields = Fields(model, document, others)
    return [_fault(model, detail, fields) for detail in error.errors(include_url=False)[:MAX_FAULTS]]


def _fault(model: Model, error: ErrorDetails, fields: Fields) -> Fault:
    path, models = _locate(model, error["loc"])
    pointer = "#" + "".join("/" + pointer_step(name) for name in path)
    context = error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            proposal = fields.suggest(path, models)
            hint = proposal.sentence if proposal else f"known are {', '.join(_field_names(models))}"
            suggestion = proposal.name if proposal else None
            return Fault(pointer=pointer, detail=f"unknown field; {hint}", code="unknown_field", suggestion=suggestion)
        case "missing":
            return Fault(pointer=pointer, detail="is missing", code="missing")
        case "model_type" | "model_attributes_type":
            field_names = ", ".join(_field_names(_locate(model, (*error["loc"], ""))[1]))
            return Fault(pointer=pointer, detail=f"must be an object; its fields are {field_names}", code="wrong_type")
        case "dict_type":
            return Fault(pointer=pointer, detail="must be an object", code="wrong_type")
        case "string_pattern_mismatch":
            pattern = str(context["pattern"])
            detail = f"does not have the form {pattern}"
            if pattern.startswith(r"^[^\x00"):
                detail = "has a character that is not allowed here: a control character, or a comma in a tag"
            return Fault(pointer=pointer, detail=detail, code="out_of_range")
        case "too_short" | "too_long":  # lists and objects
            is_short = error["type"] == "too_short"
            limit, actual = context["min_length" if is_short else "max_length"], context["actual_length"]
            detail = f"must have at {'least' if is_short else 'most'} {counted(limit, 'item')}"
            detail += f"; it has {actual or 'none'}" if isinstance(actual, int) else ""
            return Fault(pointer=pointer, detail=detail, code="out_of_range")
        case "union_tag_not_found":
            field = str(context.get("discriminator", "name")).strip("'")
            return Fault(pointer=f"{pointer}/{field}", detail="is missing", code="missing")
        case "union_tag_invalid":
            field = str(context["discriminator"]).strip("'")
            field = field if field.isidentifier() and field != "_tag" else "type"
            tags = [tag.strip(" '") for tag in str(context["expected_tags"]).split(",")]
            return not_one_of(f"{pointer}/{field}", context["tag"], tags)
        case "enum" | "literal_error":
            values = [value.strip(" '") for value in str(context["expected"]).replace(" or ", ", ").split(",")]
            return not_one_of(pointer, error["input"], values)
        case kind:
            wrong_type = kind.endswith(("_type", "_parsing"))
            detail = error["msg"].removeprefix("Input ").removeprefix("should ")
            detail = detail if wrong_type or not detail.startswith("be ") else f"must {detail}"
            return Fault(
                pointer=pointer,
                detail=f"must {detail}" if wrong_type else detail,
                code="wrong_type" if wrong_type else "out_of_range",
            )


def _locate(model: Model, location: Sequence[int | str]) -> tuple[list[int | str], list[Model]]:
    """The path into the document, without the variant tags that pydantic adds, and the possible models of the object
    that contains the faulty field."""
    path: list[int | str] = []
    models: list[Model] = [model]
    for position, name in enumerate(location):
        if isinstance(name, int):
            path.append(name)
            continue
        fields = [candidate.model_fields[name].annotation for candidate in models if name in candidate.model_fields]
        tagged = [candidate for candidate in models if name in tags_of(candidate)]
        if fields:
            path.append(name)
            if position < len(location) - 1:
                models = [candidate for annotation in fields for candidate in models_of(annotation)]
        elif tagged:
            models = tagged
        else:
            path.append(name)
    return path, models


def _field_names(models: Sequence[Model]) -> list[str]:
    return sorted({field.alias or name for model in models for name, field in model.model_fields.items()})
