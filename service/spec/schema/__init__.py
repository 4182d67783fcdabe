"""The schema of specs: every field that a user may send, with its range. A spec is data, never code.

The models describe a *resolved* spec, which has a value in every field; ``validation.resolve`` makes one from the
document that was sent. Documentation and forms show fields in the order of declaration.
"""

from __future__ import annotations

from service.spec.schema.base import *
from service.spec.schema.layers import *
from service.spec.schema.optimizers import *
from service.spec.schema.predictions import *
from service.spec.schema.specs import *
