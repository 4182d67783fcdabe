"""What regressors say about specs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from service.errors import Fault
from service.kinds.last_layers import check_activation, check_last_layer
from service.kinds.regressor import presets
from service.kinds.regressor.spec import RegressorSpec
from service.kinds.resizing import with_values
from service.kinds.specs import SpecsOfKind
from service.kinds.supervised.diagnosis import DIAGNOSIS
from service.kinds.supervised.networks import adapt_layers, networks
from service.schema.layer_shapes import Network, Shape
from service.schema.layers import Activation


def _faults(spec: RegressorSpec, networks: Sequence[Network], shape: Shape) -> list[Fault]:
    faults = check_last_layer(networks[0], (1,), (1, 1, 1), f"the prediction of the target of {spec.dataset.name}")
    return faults + check_activation(networks[0], Activation.LINEAR, "since a target can have any value")


def _adapt(spec: RegressorSpec, document: Mapping[str, Any], shape: Shape) -> RegressorSpec:
    return with_values(spec, layers=adapt_layers(spec, document, shape, 1))


SPECS: Final = SpecsOfKind[RegressorSpec](
    model=RegressorSpec,
    presets=presets.PRESETS,
    preset_info=presets.INFO,
    networks=networks,
    faults=_faults,
    adapt=_adapt,
    diagnosis=DIAGNOSIS,
)
