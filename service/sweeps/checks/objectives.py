"""What a sweep can optimize: the metrics that its jobs report after epochs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Final

from service import kinds
from service.datasets.builtins import BUILT_IN
from service.datasets.info import DatasetInfo
from service.spec.fields import closest
from service.spec.metric_info import METRICS
from service.spec.schema import Activation, Spec
from service.wording import listed

_SAMPLE_METRICS: Final = {name for name, info in METRICS.items() if info.sparse}
"""Metrics that need a reference classifier."""
_TEST_METRICS: Final = {name for name in METRICS if name.startswith("test_")}
_ROC_AUC_CLASSES: Final = 2
_BY_ACTIVATION: Final = {
    Activation.RELU: "dead_units",
    Activation.LEAKY_RELU: "dead_units",
    Activation.TANH: "saturation",
    Activation.SIGMOID: "saturation",
}
_NETWORKS: Final = {"layers", "generator", "discriminator"}
_PENALTIES: Final = {"gradient_penalty", "r1"}


def refusal(
    metric: str, base: Spec, data: DatasetInfo, searched: Collection[str], *, dataset_name: str | None
) -> tuple[str, str | None] | None:
    """A sentence on why the jobs of a sweep do not report a metric, and a metric that they do report; ``None`` if they
    report it.

    Args:
        searched: pointers to the settings that differ between trials.
        dataset_name: the dataset that the sentence names, if any.
    """
    explained = _explain_refusal(metric, base, data, searched)
    if explained is None:
        return None
    reason, match = explained
    on_data = f" on {dataset_name}" if dataset_name else ""
    detail = f"a {kinds.of(base.kind).title}{on_data} does not report {metric!r}"
    return detail + (f": {reason}" if reason else "") + (f"; did you mean {match!r}?" if match else ""), match


def _explain_refusal(
    metric: str, base: Spec, data: DatasetInfo, searched: Collection[str]
) -> tuple[str, str | None] | None:
    family = metric.partition("/")[0]
    reported_names = list(reported(base, data.name, data.classes))
    if metric in reported_names:
        return None
    match = closest(metric, reported_names)
    if metric in _TEST_METRICS:
        validation_metric = metric.replace("test_", "val_")
        return "it is measured once, after the training, and selecting by it would bias it", validation_metric
    if metric in METRICS and base.kind not in METRICS[metric].kinds:
        return f"only {listed(f'{kinds.of(name).title}s' for name in METRICS[metric].kinds)} do", None
    if metric in _SAMPLE_METRICS:
        return f"{data.name} has no reference classifier", None
    if metric == "val_roc_auc":
        return f"it needs {_ROC_AUC_CLASSES} classes, and {data.name} has {data.classes}", None
    steps = [pointer.split("/")[1:] for pointer in searched if pointer.startswith("/")]
    if metric == "d_penalty":
        if any(step[-1] in (*_PENALTIES, "discriminator") for step in steps):
            return None
        return f"the discriminator of `base` has no {' or '.join(sorted(_PENALTIES))}", None
    if family in METRICS and (family != metric or family.endswith(("dead_units", "saturation"))):
        if any(_changes_layers(step) for step in steps):
            return None
        return "`base` has no such layer", match if match and match.partition("/")[0] == family else None
    return f"it reports {listed(name for name in reported_names if '/' not in name)}" if match is None else "", match


def _changes_layers(steps: Sequence[str]) -> bool:
    """Whether a setting changes which layers a network has, or their activations."""
    last = steps[-1]
    return steps[0] in _NETWORKS and (last.isdecimal() or last in _NETWORKS or last in ("activation", "type"))


def reported(spec: Spec, dataset: str, classes: int) -> Iterator[str]:
    """The metrics that a job on this dataset reports after epochs, those of layers included."""
    builtin = BUILT_IN.get(dataset)
    absent = _TEST_METRICS | {name for name, info in METRICS.items() if spec.kind not in info.kinds}
    if builtin is None or builtin.reference_classifier is None:
        absent |= _SAMPLE_METRICS
    if classes != _ROC_AUC_CLASSES:
        absent |= {"val_roc_auc"}
    absent |= spec.absent_metrics
    layer_metrics = list(_layer_metrics(spec))
    network_metrics = {f"{prefix}{metric}" for prefix, metric, _ in layer_metrics}
    for name in METRICS:
        if name.endswith(("dead_units", "saturation")):
            if name in network_metrics:
                yield name
        elif name not in absent:
            yield name
    for _, metric, layer in layer_metrics:
        yield f"{metric}/{layer}"


def _layer_metrics(spec: Spec) -> Iterator[tuple[str, str, str]]:
    """The network's prefix, the metric and the layer's name, for each metric of a single layer."""
    for network in spec.trained_networks:
        for number, layer in enumerate(network.layers):
            if layer.has_weights:
                yield network.letter, "grad_norm", f"{network.path}layers.{number}"
            metric = _BY_ACTIVATION.get(getattr(layer, "activation", None) or Activation.LINEAR)
            if metric is not None and number < len(network.layers) - 1:
                yield network.letter, metric, f"{network.path}layers.{number}"
