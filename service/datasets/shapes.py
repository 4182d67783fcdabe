"""The shape of a dataset's examples, which a spec must fit."""

from service.datasets.info import DatasetInfo
from service.spec.estimation.layer_shapes import Shape


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
