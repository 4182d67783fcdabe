"""A folder for the Hugging Face Hub: model card, weights, spec, pictures, and the model as ONNX and PyTorch."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import safetensors.numpy

from service.models.exports.creation import JobFacts, Pictures
from service.models.exports.numpy_code import PREPROCESSING, numpy_code
from service.models.exports.onnx_graph import metadata, to_onnx
from service.models.exports.torch_module import example_row, latent_example, to_torch
from service.models.exports.trained_network import TrainedModel
from service.spec.metric_info import describe, number
from service.wording import counted

WEIGHTS: Final = "model.safetensors"
_SHOWN_CLASSES: Final = 20
_SPLITS: Final = ("test", "validation", "")
"""The splits of results, in their order on the card; the last one is for metrics of generated images."""
_SPLIT_OF: Final = {"test": "test", "val": "validation", "validation": "validation"}
"""The split of a metric, by the first word of its name."""
_PHOTOS: Final = """

Photos must be prepared as in training: turned upright by their EXIF data, laid over black where they are transparent,
scaled by a box filter {fit}. `prepare(path)` above and in `torch/model.py` does that;
the metadata `photo_preparation` of `model.onnx` lists the steps."""
_FITS: Final = {False: "to cover the size, and cropped evenly", True: "into the size, with black borders"}
_INVISIBLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters (C0 and C1), line separators, and direction marks."""
_LINE_BREAK: Final = re.compile(r"\r\n|[\t\n\r]")
"""Line breaks and tabs, which become spaces in code spans."""
_NOT_IN_YAML: Final = re.compile(r"[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
"""Characters that JSON leaves unescaped, and that YAML reads differently or not at all."""
_LICENSES: Final = frozenset({
    "afl-3.0", "apache-2.0", "artistic-2.0", "bsd", "bsd-2-clause", "bsd-3-clause", "cc", "cc-by-2.0", "cc-by-3.0",
    "cc-by-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc0-1.0", "gpl", "gpl-2.0",
    "gpl-3.0", "isc", "lgpl-2.1", "lgpl-3.0", "mit", "mpl-2.0", "odbl", "pddl", "unknown", "unlicense", "wtfpl", "zlib",
})  # fmt: skip
"""Licence identifiers of the Hub. Any other licence is given as ``other``, with its name."""


def to_huggingface(model: TrainedModel, facts: JobFacts, pictures: Pictures) -> dict[str, bytes]:
    """The files of the folder: path to content."""
    files = {
        "README.md": model_card(model, facts, samples=bool(pictures.samples)).encode(),
        "spec.json": _json(facts.job.resolved),
        "provenance.json": _json(_provenance(facts)),
        WEIGHTS: safetensors.numpy.save(_weights(model), {"format": "np", **metadata(model, facts)}),
        "model.onnx": to_onnx(model, facts),
        "curves.png": pictures.curves(),
    }
    if model.is_table:
        files[PREPROCESSING] = _json(
            {"columns": [dict(column) for column in model.columns], "unused_columns": list(model.unused_columns)}
        )
    if pictures.samples:
        files["samples.png"] = pictures.samples[-1].read()
    return files | {f"torch/{path}": data for path, data in to_torch(model, facts).items()}


def _weights(model: TrainedModel) -> dict[str, Any]:
    return {
        f"{trained.name}.{name}": np.asarray(array, order="C")
        for trained in model.all_layers
        for name, array in trained.tensors.items()
    }


def model_card(model: TrainedModel, facts: JobFacts, *, samples: bool) -> str:
    """The text of README.md."""
    requirements = "With NumPy and safetensors"
    if model.photos is not None:
        requirements = 'With NumPy, Pillow and safetensors, for example `predict(prepare("photo.jpg"))`'
    parts = [
        "\n".join(["---", *_front_matter(model, facts), "---"]),
        f"# {_escape_markdown(facts.title)}",
        _introduction(model, facts),
        "## Results",
        f"After epoch {facts.checkpoint_epoch} of {facts.epochs[-1].epoch if facts.epochs else 0}:",
        "\n".join(["| metric | value |", "|---|---|", *_rows(facts)]),
        "![Curves of the training](curves.png)",
        *(["![Samples of the last epoch](samples.png)"] if samples else []),
        "## Use",
        f"{requirements}, in the folder of this file:\n\n```python\n{numpy_code(model, WEIGHTS)}```",
        _other_uses(model),
        "## Provenance",
        _origin(facts),
    ]
    return "\n\n".join(parts) + "\n"


def _introduction(model: TrainedModel, facts: JobFacts) -> str:
    sides = " x ".join(map(str, model.image_shape))
    data = _escape_markdown(facts.dataset_title)
    training = f"Trained on {data} with Tapeline: {model.parameters:,} parameters, settings in [spec.json](spec.json)."
    if model.generates:
        class_text = f" and one of {model.classes} classes" if model.classes else ""
        inputs = f"{model.latent_dim} random numbers{class_text}"
        summary = f"The generator of a GAN. It turns {inputs} into an image of {sides} pixels."
        return f"{summary} {training}"
    examples = f"rows of {counted(len(model.columns), 'column')}" if model.is_table else f"images of {sides} pixels"
    if model.target is not None:
        return f"A regressor that predicts {_escape_markdown(model.target['name'])} from {examples}. {training}"
    names = ", ".join(_escape_markdown(name) for name in model.class_names[:_SHOWN_CLASSES])
    remainder = (
        f" and {len(model.class_names) - _SHOWN_CLASSES} more" if len(model.class_names) > _SHOWN_CLASSES else ""
    )
    summary = f"A classifier of {examples} into {len(model.class_names)} classes: {names}{remainder}."
    return f"{summary} {training}"


def _task(model: TrainedModel) -> str:
    if model.is_table:
        return "tabular-classification" if model.target is None else "tabular-regression"
    return "unconditional-image-generation" if model.generates else "image-classification"


def _other_uses(model: TrainedModel) -> str:
    if model.is_table:
        return (
            "`model.onnx` has an input for each column, (N,): float64 for numbers and dates (days since 1970-01-01; "
            "NaN or infinity where a value is missing), text for categories (empty "
            "where it is missing).\n\n"
            "`torch/model.py` is a PyTorch module that needs only torch: "
            f"{_code_span(f'load().predict([{example_row(model)}])')}."
        )
    kind, shape = ("latent", (model.latent_dim,)) if model.generates else ("images", model.image_shape)
    sides = ", ".join(map(str, shape))
    dtype = "float32" if model.generates else "uint8, levels 0 to 255"
    call = f"generate({latent_example(model)})" if model.generates else "predict(images)"
    feeds = f'"{kind}": {kind}'
    inputs = f"`{kind}` (N, {sides}), {dtype}"
    if model.classes:
        call = f"generate({latent_example(model)}, torch.arange(16) % {model.classes})"
        feeds += ', "class": classes'
        inputs += ", and `class` (N,), int64, numbers in the order of `class_names`"
    return (
        f"`model.onnx` takes {inputs}:\n\n```python\n"
        f'import onnxruntime\n\nmodel = onnxruntime.InferenceSession("model.onnx")\n'
        f"(outputs,) = model.run(None, {{{feeds}}})\n```\n\n"
        f"`torch/model.py` is a PyTorch module that needs only torch: `load().{call}`."
        + ("" if model.photos is None else _PHOTOS.format(fit=_FITS[model.photos.pads]))
    )


def _rows(facts: JobFacts) -> Iterator[str]:
    for name, value in _results(facts):
        yield f"| {_escape_markdown(describe(name).label)} (`{name}`) | {number(name, value)} |"


def _origin(facts: JobFacts) -> str:
    provenance = _provenance(facts)
    lines = [
        f"- {_escape_markdown(name.replace('_', ' '))}: {_code_span(value)}"
        for name, value in provenance.items()
        if isinstance(value, str)
    ]
    return "\n".join([*lines, "- all details: [provenance.json](provenance.json)"])


def _provenance(facts: JobFacts) -> Mapping[str, Any]:
    return {
        "job": facts.job.id,
        "spec_hash": facts.job.spec_hash,
        "dataset": str(facts.job.resolved["dataset"]["name"]),
        "dataset_sha256": facts.job.dataset_sha256,
        "dataset_source": facts.dataset_source,
        "result_digest": facts.job.result_digest,
        "epoch": facts.checkpoint_epoch,
        "environment": facts.job.provenance or {},
    }


def _front_matter(model: TrainedModel, facts: JobFacts) -> Iterator[str]:
    """The YAML front matter. Values are written as JSON, which is valid YAML."""
    yield from _license(facts.license)
    yield "library_name: tapeline"
    yield f"pipeline_tag: {_task(model)}"
    tags = ["tapeline", "numpy", "onnx", "pytorch", str(facts.job.kind), *facts.job.tags]
    yield f"tags: {_inline(list(dict.fromkeys(tags)))}"
    metrics = [*_quality_metrics(facts)]
    if metrics:
        yield f"metrics: {_inline(list(dict.fromkeys(kind for _, kind, _, _ in metrics)))}"
        yield "model-index:"
        yield f"- name: {_inline(facts.title)}"
        yield "  results:"
        data = {"name": facts.dataset_title, "type": str(facts.job.resolved["dataset"]["name"])}
        splits = {split for split, _, _, _ in metrics}
        for split in sorted(splits, key=_SPLITS.index):
            yield f"  - task: {_inline({'type': _task(model)})}"
            yield f"    dataset: {_inline(data | ({'split': split} if split else {}))}"
            yield "    metrics:"
            for metric_split, kind, label, value in metrics:
                if metric_split == split:
                    yield f"    - {{type: {_inline(kind)}, name: {_inline(label)}, value: {_number(value)}}}"


def _quality_metrics(facts: JobFacts) -> Iterator[tuple[str, str, str, float]]:
    """The metrics of the model's quality: split, type, name and value."""
    for name, value in _results(facts):
        info = describe(name)
        if info.goal is not None and value is not None and not name.startswith("train_"):
            prefix, _, kind = name.partition("_")
            split = _SPLIT_OF.get(prefix, "")
            yield split, kind if split else name, info.label, value


def _results(facts: JobFacts) -> Iterator[tuple[str, float | None]]:
    """The metrics of the exported epoch, except those that describe the training process."""
    for name, value in facts.metrics.items():
        if not ("/" in name or name.endswith(("learning_rate", "grad_norm", "dead_units"))):
            yield name, value


def _license(text: str | None) -> Iterator[str]:
    if not text:
        return
    identifier = re.sub(r"\s+", "-", text.partition("(")[0].strip().lower())
    if identifier in _LICENSES:
        yield f"license: {identifier}"
    else:
        yield "license: other"
        yield f"license_name: {_inline(text)}"


def _number(value: float) -> str:
    """A number in YAML 1.1, which would read 1e-05 as a string."""
    text = repr(float(value))
    return text if "." in text else text.replace("e", ".0e")


def _inline(value: Any) -> str:
    """A value as JSON that is also YAML, which has further line breaks, and permits no control characters."""
    text = json.dumps(value, ensure_ascii=False)
    return _NOT_IN_YAML.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _escape_markdown(text: str) -> str:
    """Escape a text for Markdown, so that names given by users cannot become markup."""
    return re.sub(r"([\\`*_{}\[\]<>|#&~$])", r"\\\1", _mask_invisible(" ".join(text.split())))


def _code_span(text: str) -> str:
    """A text as a code span in Markdown, between more backticks than its longest run of them; its spaces are
    kept."""
    shown = _mask_invisible(_LINE_BREAK.sub(" ", text))
    ticks = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    space = " " if shown.startswith(("`", " ")) or shown.endswith(("`", " ")) else ""
    return f"{ticks}{space}{shown}{space}{ticks}"


def _mask_invisible(text: str) -> str:
    """A text with replacement characters for invisible ones."""
    return _INVISIBLE.sub("\N{REPLACEMENT CHARACTER}", text)
