"""The base model, common types and limits of all parts of a spec."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, create_model

M = TypeVar("M", bound=BaseModel)

MAX_LAYERS: Final = 64
MAX_INNER_LAYERS: Final = 16
"""Maximum number of layers inside a residual layer."""
MAX_UNITS: Final = 3 * 2**18
"""The number of values of a colour image of 512 x 512. The number of weights has a separate limit."""
MAX_LATENT: Final = 4096
MAX_FILTERS: Final = 1024
MAX_KERNEL: Final = 31
MAX_SCALE: Final = 16
"""Maximum factor by which one layer may shrink or enlarge an image along a side."""
MAX_OUTPUTS: Final = 3 * 2**18
"""Maximum number of values that one layer may output for one example."""
MAX_PARAMETERS: Final = 20_000_000
MAX_MEMORY_BYTES: Final = 4 * 2**30
"""Maximum estimated peak memory of a training."""
MAX_OPERATIONS: Final = 1e16
"""Maximum number of floating-point operations of a whole run: several days on one core."""
MAX_EPOCHS: Final = 10_000
MAX_BATCH: Final = 4096
MAX_PACK: Final = 16
MAX_CRITIC_STEPS: Final = 100
MAX_ACCUMULATED: Final = 1000
MAX_PENALTY: Final = 1e6
MAX_SHOWN_PIXELS: Final = 2**21
"""Maximum number of pixels in one sample grid; a colour pixel counts three times."""
MAX_SHIFT: Final = 16
MAX_CUTOUT: Final = 256
MAX_SCORED_SAMPLES: Final = 10_000
MAX_FOLDS: Final = 20


class StrictModel(BaseModel):
    """Base of all objects in specs and requests: no unknown fields, finite numbers, no coercion of values."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


def with_fields_of(*models: type[BaseModel], description: str = "") -> Callable[[type[M]], type[M]]:
    """Give a model the fields of others, which a table declares, in this order and before its own.

    Args:
        description: in place of its docstring.
    """

    def extend(model: type[M]) -> type[M]:
        bases: tuple[type[Any], ...] = (model, *reversed(models))  # Pydantic has the fields of the last one first
        return create_model(
            model.__name__, __base__=bases, __doc__=description or model.__doc__, __module__=model.__module__
        )

    return extend


Rate = Annotated[float, Field(gt=0, le=10)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
PlainText = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Label = Annotated[str, StringConstraints(min_length=1, max_length=50, pattern=r"^[^\x00-\x1f\x7f,]+$")]


def applies_when(**conditions: dict[str, Any]) -> Any:
    """Mark a field that has an effect only if sibling fields match these JSON schemas; forms hide it otherwise."""
    return Field(json_schema_extra={"x-applies-when": {**conditions}})


Epsilon = Annotated[float, Field(gt=0, le=1)]
