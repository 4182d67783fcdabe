"""What all parts of a spec share: the base model, common types, and limits."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

MAX_LAYERS: Final = 64
MAX_INNER_LAYERS: Final = 16
"""The most layers inside of one."""
MAX_UNITS: Final = 3 * 2**18
"""As many as an image of 512 x 512 in colour has numbers; a network's weights have a limit of their own."""
MAX_LATENT: Final = 4096
MAX_FILTERS: Final = 1024
MAX_KERNEL: Final = 31
MAX_SCALE: Final = 16
"""The most that one layer may make an image smaller or larger along a side."""
MAX_OUTPUTS: Final = 3 * 2**18
"""The most numbers that one layer may make of one input."""
MAX_PARAMETERS: Final = 20_000_000
MAX_MEMORY_BYTES: Final = 4 * 2**30
"""The most estimated peak memory of a training."""
MAX_OPERATIONS: Final = 1e16
"""The most floating-point operations of a whole run: some days of one core."""
MAX_EPOCHS: Final = 10_000
MAX_BATCH: Final = 4096
MAX_PACK: Final = 16
MAX_CRITIC_STEPS: Final = 100
MAX_ACCUMULATED: Final = 1000
MAX_PENALTY: Final = 1e6
MAX_SHOWN_PIXELS: Final = 2**21
"""The most pixels of data that one sample grid shows; a pixel in colour counts three times."""
MAX_SHIFT: Final = 16
MAX_CUTOUT: Final = 256
MAX_JUDGED: Final = 10_000
MAX_FOLDS: Final = 20


class Part(BaseModel):
    """Base of everything in a spec: unknown fields are faults, numbers are finite, nothing is coerced."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


Rate = Annotated[float, Field(gt=0, le=10)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
PlainText = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Label = Annotated[str, StringConstraints(min_length=1, max_length=50, pattern=r"^[^\x00-\x1f\x7f,]+$")]


def applies_when(**conditions: dict[str, Any]) -> Any:
    """Mark a field that has an effect only while its neighbours meet these JSON schemas: a form hides it otherwise."""
    return Field(json_schema_extra={"x-applies-when": {**conditions}})


Epsilon = Annotated[float, Field(gt=0, le=1)]
