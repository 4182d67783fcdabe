"""The shape of a dataset's examples, which a spec must fit, and the preset that suits them."""

from typing import Final

from service import kinds
from service.datasets.info import DatasetInfo
from service.kinds import rooms
from service.schema.layer_shapes import Shape
from service.spec.dataset_checks import PHOTO_PRESET, TABLE_PRESET
from service.states import DatasetKind, Task

_GREY_AXES: Final = 2
"""Number of axes of a grey image; a colour image has three."""


def shape_of(info: DatasetInfo) -> Shape:
    """The shape of a dataset; that of a table is one row of network inputs."""
    rows, columns, channels = (*info.input_shape, 1)[:3]
    return Shape(
        rows=rows,
        columns=columns,
        channels=channels,
        kind=info.kind,
        classes=info.classes,
        train_count=info.train_count,
        validation_count=info.validation_count,
        test_count=info.test_count,
        divided=info.split is not None,
    )


def default_preset(info: DatasetInfo) -> str:
    """The preset of a spec that names none, if its kind has it; otherwise, it is that of the kind.

    The learning rate of ``fast`` is tuned to its dense network and to digits, which are mostly black. Bright
    pixels make the loss steeper in all weights of the first layer together: on photos and on dark ink on
    white, it diverges. The batch normalization of ``conv`` removes the mean.
    """
    if info.kind is DatasetKind.TABLE:
        return TABLE_PRESET
    if info.is_photos or info.is_bright or (info.upload_id is not None and len(info.image_shape) > _GREY_AXES):
        return PHOTO_PRESET
    return rooms.specs(kinds.for_task(Task.CLASSIFICATION).name).default_preset
