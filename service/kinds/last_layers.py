"""Checks of the last layer of a network, which its kind and its loss require."""

from __future__ import annotations

from service.errors import Fault
from service.schema.layer_shapes import Network
from service.schema.layers import Activation, Conv2D, Conv2DTranspose, Dense, Size, shown


def check_last_layer(network: Network, row: Size, image: Size, reason: str) -> list[Fault]:
    """Faults of a network's last layer: dense must output ``row``, convolutions ``image``."""
    last = network.layers[-1]
    pointer = f"#/{network.where}/{len(network.layers) - 1}"
    match last:
        case Dense():
            if last.units == row[0]:
                return []
            detail, suggestion = f"must be {row[0]}, {reason}; it is {last.units}", str(row[0])
            return [Fault(pointer=f"{pointer}/units", detail=detail, code="wrong_shape", suggestion=suggestion)]
        case Conv2D() | Conv2DTranspose():
            size = network.layer_shapes[-1].size if len(network.layer_shapes) == len(network.layers) else image
            if size == image:
                return []
            detail = f"must end in {shown(image)}, {reason}; it ends in {shown(size)}"
            return [Fault(pointer=pointer, detail=detail, code="wrong_shape")]
        case _:
            return [
                Fault(
                    pointer=pointer,
                    detail="the last layer must be dense, conv2d or conv2d_transpose",
                    code="wrong_shape",
                )
            ]


def check_activation(network: Network, activation: Activation, reason: str) -> list[Fault]:
    """Faults of a network's last activation."""
    last = network.layers[-1]
    if not isinstance(last, Dense | Conv2D | Conv2DTranspose) or last.activation is activation:
        return []
    return [
        Fault(
            pointer=f"#/{network.where}/{len(network.layers) - 1}/activation",
            detail=f"must be {activation}, {reason}; it is {last.activation}",
            code="wrong_activation",
            suggestion=str(activation),
        )
    ]
