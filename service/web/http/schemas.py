"""The base of all response models, and their common types."""

from __future__ import annotations

import math
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict

from service.wording import at_time


class ResponseModel(BaseModel):
    """Base of all response models."""

    model_config = ConfigDict(frozen=True, from_attributes=True, validate_by_name=True, validate_by_alias=True)

    @classmethod
    def from_row(cls, row: object, /, **extra_fields: Any) -> Self:
        """A model of an object's attributes: a field is read from the attribute with its name, or its alias, and so are
        those of models inside it.

        Args:
            extra_fields: fields that are not attributes of ``row``.
        """
        own_fields = {
            name: getattr(row, str(field.validation_alias or name))
            for name, field in cls.model_fields.items()
            if name not in extra_fields
        }
        return cls.model_validate(own_fields | extra_fields)


def finite(value: Any) -> Any:
    """The same document, with null for every number that is not finite, which JSON cannot express."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {name: finite(item) for name, item in value.items()}
        case list():
            return [finite(item) for item in value]
        case _:
            return value


Timestamp = Annotated[str, BeforeValidator(lambda value: at_time(value) if isinstance(value, int) else value)]
"""RFC 3339 in UTC, from milliseconds since the epoch."""
Seconds = Annotated[float, BeforeValidator(lambda value: round(value, 3) if isinstance(value, float) else value)]
"""A duration, to the millisecond."""
Document = Annotated[dict[str, Any], BeforeValidator(finite)]
"""JSON; a number that is not finite is null."""
Metrics = Annotated[dict[str, float | None], BeforeValidator(finite)]
"""Name to value; a value that is not finite is null."""
