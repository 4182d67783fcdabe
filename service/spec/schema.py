"""The schema of specs: every field that a user may send, with its range. A spec is data, never code.

The models describe a *resolved* spec, which has a value in every field; ``validation.resolve`` makes one from the
document that was sent. Documentation and forms show fields in the order of declaration.
"""

from __future__ import annotations

from typing import Final, TypeGuard

from service import kinds
from service.kinds import rooms
from service.kinds.classifier.spec import *
from service.kinds.gan.spec import *
from service.kinds.prediction.spec import *
from service.kinds.regressor.spec import *
from service.kinds.supervised.spec import *
from service.schema.base import *
from service.schema.layers import *
from service.schema.optimizers import *
from service.schema.specs import *
from service.states import Kind as Kind

Spec = BaseSpec
"""The resolved spec of a training of any kind."""
SPEC_MODELS: Final[dict[Kind, type[Spec]]] = {Kind(kind.name): rooms.specs(kind.name).model for kind in kinds.TRAINED}
"""The model of each kind of spec."""
JobSpec = Spec | ResolvedPrediction
"""The resolved spec of any job."""


def is_training(spec: JobSpec) -> TypeGuard[Spec]:
    """Whether a job with this spec trains a model."""
    return kinds.of(spec.kind).trains
