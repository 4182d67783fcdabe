"""TensorBoard: one event file with all metrics, resources, some sample grids, and the settings as hyperparameters.

TensorBoard's scalars are float32, which rounds metrics. Each metric is therefore also written as a float64 tensor, with
a tag that begins with ``float64/``. TensorBoard's pages do not show these tensors, but its reader returns them.
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboardX.proto.tensor_pb2 import TensorProto
from tensorboardX.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboardX.proto.types_pb2 import DT_DOUBLE
from tensorboardX.record_writer import RecordWriter

from service.models.exports.creation import JobFacts, Pictures
from service.spec.metric_info import describe
from tapeline.inputs.values import flat_settings

_FILE_VERSION: Final = "brain.Event:2"
_RESOURCES: Final = "resources/"
_EXACT: Final = "float64/"


def to_tensorboard(model: None, facts: JobFacts, pictures: Pictures) -> dict[str, bytes]:
    """The event file: name to content."""
    with tempfile.TemporaryDirectory(prefix="tapeline-") as folder:
        path = Path(folder) / "events"
        writer = RecordWriter(str(path))
        for event in _events(facts, pictures):
            writer.write(event.SerializeToString(deterministic=True))
        writer.close()
        return {f"events.out.tfevents.{facts.job.created_ms // 1000}.tapeline": path.read_bytes()}


def _events(facts: JobFacts, pictures: Pictures) -> Iterator[Event]:
    started_at = facts.job.created_ms / 1000
    yield Event(wall_time=started_at, file_version=_FILE_VERSION)
    names = list(dict.fromkeys([*(name for row in facts.epochs for name in row.metrics), *facts.test_scores]))
    for entry in summary.hparams(dict(flat_settings(facts.job.resolved)), dict.fromkeys(names, 0.0)):
        yield Event(wall_time=started_at, step=0, summary=entry)
    for row in facts.epochs:
        resources = {"seconds": row.seconds, "cpu_seconds": row.cpu_seconds, "memory_bytes": row.memory_bytes}
        resources = {_RESOURCES + name: value for name, value in resources.items() if value is not None}
        values = [value for name, number in (dict(row.metrics) | resources).items() for value in _values(name, number)]
        yield Event(wall_time=row.finished_ms / 1000, step=row.epoch, summary=Summary(value=values))
    if facts.test_epoch is not None:
        values = [value for name, number in facts.test_scores.items() for value in _values(name, number)]
        ended_at = facts.epochs[-1].finished_ms / 1000
        yield Event(wall_time=ended_at, step=facts.test_epoch, summary=Summary(value=values))
    for sample in pictures.samples:
        png = sample.read()
        width, height = struct.unpack(">II", png[16:24])
        content = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=png)
        image = Summary.Value(tag="samples", image=content)
        yield Event(wall_time=sample.created_ms / 1000, step=sample.epoch, summary=Summary(value=[image]))


def _values(name: str, value: float | None) -> Iterator[Summary.Value]:
    """A metric as a float32 scalar for charts, and as an exact float64 tensor."""
    number = float("nan") if value is None else float(value)
    metadata = SummaryMetadata(
        display_name=name,
        summary_description=describe(name.removeprefix(_RESOURCES)).description,
        plugin_data=SummaryMetadata.PluginData(plugin_name="scalars"),
    )
    yield Summary.Value(tag=name, simple_value=number, metadata=metadata)
    tensor = TensorProto(dtype=DT_DOUBLE, tensor_shape=TensorShapeProto(), double_val=[number])
    yield Summary.Value(tag=_EXACT + name, tensor=tensor)
