from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import engine
from service.datasets.cache import Dataset, load
from service.datasets.formats.array_folders import ArrayCache
from service.datasets.shapes import shape_of
from service.datasets.tables.preprocessing import Preprocessing
from service.kinds.supervised.model import network as supervised
from service.schema.layer_shapes import Shape
from service.spec.dataset_checks import check_fit
from service.spec.estimation.networks import networks as shapes_of
from service.spec.presets.adaptation import match_output_to_dataset
from service.spec.presets.definitions import PRESETS
from service.spec.schema import Activation, ClassifierSpec, Kind, StopMetric
from service.spec.validation import resolve
from workers.training import build


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder: Path = tmp_path_factory.mktemp("data")
    return load("mnist-10k", folder, cache=ArrayCache(folder / "cache"))


@pytest.fixture(scope="module")
def diabetes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder: Path = tmp_path_factory.mktemp("tables")
    return load("diabetes", folder, cache=ArrayCache(folder / "cache"))


@pytest.fixture(scope="module")
def few_digits(digits: Dataset) -> Dataset:
    """Enough for two batches of 500."""
    train, validation = digits.train, digits.validation
    return replace(
        digits,
        train=replace(train, inputs=train.inputs[:1000], labels=train.labels[:1000]),
        validation=replace(validation, inputs=validation.inputs[:200], labels=validation.labels[:200]),
    )


@pytest.mark.parametrize(("kind", "preset"), [(kind, name) for kind in PRESETS for name in PRESETS[kind]])
def test_a_trainer_built_from_each_preset_takes_a_step(
    digits: Dataset, diabetes: Dataset, kind: Kind, preset: str
) -> None:
    document, dataset, preprocessing = {"kind": kind, "preset": preset}, digits, None
    if kind is Kind.REGRESSOR:
        dataset, train = diabetes, diabetes.train
        preprocessing = Preprocessing.of(dataset.info, train.inputs, train.labels)
    spec = match_output_to_dataset(resolve(document), document, shape_of(dataset.info))
    trainer = build.trainer(spec, dataset, preprocessing)
    report = next(iter(trainer.run()))
    assert isinstance(report, engine.BatchDone)
    assert report.step == 1


@pytest.mark.parametrize("activation", Activation)
def test_the_engine_has_every_activation_of_the_spec(digits: Dataset, activation: Activation) -> None:
    layers = [{"units": 4, "activation": activation}, {"units": 10, "activation": "softmax"}]
    trainer = build.trainer(resolve({"kind": "classifier", "layers": layers}), digits)
    assert isinstance(trainer, engine.ClassifierTrainer)
    first = trainer.model.layers[0]
    assert isinstance(first, engine.Dense)
    assert (first.activation or "linear") == activation.value


SETTINGS: list[dict[str, Any]] = [
    {"loss": {"name": "squared_error", "reduction": "sum"}},
    {"loss": {"name": "binary_cross_entropy"}, "layers": [{"units": 10, "activation": "sigmoid"}]},
    {"optimizer": {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9}},
    {"schedule": {"name": "step", "at_epochs": [1], "factor": 0.5}},
    {"schedule": {"name": "constant"}},
    {"initializer": {"name": "uniform", "scale": 0.1}},
    {"initializer": {"name": "glorot"}},
    {"loss": {"name": "squared_error", "label_smoothing": 0.1}},
    {"loss": {"class_weights": "balanced", "label_smoothing": 0.1}},
    {"optimizer": {"nesterov": True, "weight_decay": 0.001, "decay_biases": False, "clip_norm": 1.0}},
    {"optimizer": {"name": "adam", "clip_norm": 1.0}},
    {"optimizer": {"name": "adamw"}},
    {"schedule": {"name": "cosine", "warmup_fraction": 0.1}},
    {"augmentation": {"max_shift": 2}},
    {"augmentation": {"flip": True, "cutout": 6}},
    {"average_decay": 0.99},
    {"early_stopping": {"patience": 3}},
    {"dtype": "float64"},
    {"dataset": {"scale": [-1, 1]}},
]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_every_setting_of_a_spec_can_be_trained(few_digits: Dataset, setting: dict[str, Any]) -> None:
    layers = [{"units": 16, "activation": "relu"}, {"units": 10, "activation": "softmax"}]
    spec = resolve({"kind": "classifier", "layers": layers, "epochs": 1, "batch_size": 500, **setting})
    reports = list(build.trainer(spec, few_digits).run())
    last_report = reports[-1]
    assert isinstance(last_report, engine.EpochDone)
    assert np.isfinite(list(last_report.metrics.values())).all()
    assert len(reports) == 2 + 1


CONVOLUTIONS: dict[Kind, dict[str, Any]] = {
    Kind.CLASSIFIER: {
        "layers": [
            {"type": "conv2d", "filters": 3, "kernel": 5, "stride": 2, "activation": "linear"},
            {"type": "batch_norm", "activation": "leaky_relu", "momentum": 0.8, "negative_slope": 0.1},
            {"type": "max_pool2d"},
            {"type": "dropout", "rate": 0.1},
            {"type": "conv2d", "filters": 4, "kernel": 2, "padding": "valid", "activation": "relu"},
            {"type": "flatten"},
            {"units": 10, "activation": "softmax"},
        ]
    },
    Kind.GAN: {
        "latent": {"dim": 8},
        "generator": {
            "layers": [
                {"units": 98, "activation": "linear"},
                {"type": "batch_norm", "activation": "relu"},
                {"type": "reshape", "shape": [7, 7, 2]},
                {"type": "upsample2d", "size": 4},
                {"type": "conv2d", "filters": 1, "activation": "tanh"},
            ]
        },
        "discriminator": {
            "layers": [
                {"type": "conv2d", "filters": 2, "stride": 4, "activation": "leaky_relu"},
                {"type": "flatten"},
                {"units": 1, "activation": "sigmoid"},
            ]
        },
    },
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_convolutional_networks_have_the_layer_sizes_estimated_from_the_spec(digits: Dataset, kind: Kind) -> None:
    spec = resolve({"kind": kind, "epochs": 1, "batch_size": 500, **CONVOLUTIONS[kind]})
    check_fit(spec, Shape(rows=28, columns=28, classes=10, train_count=8500))
    trainer = build.trainer(spec, digits)
    report = next(iter(trainer.run()))
    assert isinstance(report, engine.BatchDone)
    built = [trainer.model] if isinstance(trainer, engine.ClassifierTrainer) else [
        trainer.generator, trainer.discriminator
    ]  # fmt: skip
    for network, model in zip(
        shapes_of(spec, Shape(rows=28, columns=28, classes=10, train_count=1)), built, strict=True
    ):
        assert network.input_size == model.input_shape
        outputs = model.layer_outputs(np.zeros((2, model.inputs), np.float32))
        sizes = [output.shape[1:] for output in outputs[:-1]]
        assert [layer.size for layer in network.layer_shapes[:-1]] == sizes
        assert network.layer_shapes[-1].outputs == model.units
        assert sum(layer.weights for layer in network.layer_shapes) == sum(p.size for p in model.parameters)
        assert sum(layer.statistics for layer in network.layer_shapes) == sum(b.size for b in model.buffers)


SIDES = st.integers(2, 5)
ANY_LAYER = st.one_of(
    st.fixed_dictionaries({"units": st.integers(1, 20), "activation": st.just("relu")}),
    st.fixed_dictionaries(
        {
            "type": st.just("conv2d"),
            "filters": st.integers(1, 3),
            "kernel": SIDES,
            "stride": st.integers(1, 3),
            "padding": st.sampled_from(["same", "valid"]),
            "activation": st.just("linear"),
        }
    ),
    st.fixed_dictionaries({"type": st.sampled_from(["max_pool2d", "upsample2d"]), "size": SIDES}),
    st.fixed_dictionaries({"type": st.just("reshape"), "shape": st.lists(SIDES, min_size=3, max_size=3)}),
    st.sampled_from([{"type": "flatten"}, {"type": "batch_norm"}, {"type": "dropout", "rate": 0.5}]),
)


@hypothesis.given(layers=st.lists(ANY_LAYER, max_size=4))
def test_exactly_the_valid_specs_can_be_built(layers: list[dict[str, Any]]) -> None:
    spec = resolve({"kind": "classifier", "layers": [*layers, {"units": 3, "activation": "softmax"}]})
    assert isinstance(spec, ClassifierSpec)
    (network,) = shapes_of(spec, Shape(rows=6, columns=8, classes=10, train_count=1))
    try:
        model = supervised(spec, (6, 8), engine.initializers.he_normal)
    except engine.ShapeError:
        assert network.faults
        return
    assert not network.faults
    assert [layer.size for layer in network.layer_shapes] == model.layer_shapes
    assert model(np.zeros((2, 48), np.float32)).shape == (2, 3)


def test_the_settings_of_a_layer_reach_it(digits: Dataset) -> None:
    trainer = build.trainer(resolve({"kind": "classifier", **CONVOLUTIONS[Kind.CLASSIFIER]}), digits)
    assert isinstance(trainer, engine.ClassifierTrainer)
    conv, norm, *_, last_conv, _, _ = trainer.model.layers
    assert isinstance(conv, engine.Conv2D)
    assert (conv.kernel, conv.stride, conv.padding, conv.activation) == (5, 2, "same", None)
    assert isinstance(norm, engine.BatchNorm)
    assert (norm.momentum, norm.activation, norm.negative_slope) == (0.8, "leaky_relu", 0.1)
    assert isinstance(last_conv, engine.Conv2D)
    assert last_conv.padding == "valid"
    assert "layers.1.running_variance" in trainer.model.state_dict()


@pytest.mark.parametrize("metric", StopMetric)
def test_training_stops_early_by_the_metric_of_the_spec(few_digits: Dataset, metric: StopMetric) -> None:
    stopping = {"metric": metric, "patience": 1, "min_delta": 10}  # no accuracy rises and no loss falls that much
    spec = resolve({"kind": "classifier", "epochs": 4, "batch_size": 500, "early_stopping": stopping})
    trainer = build.trainer(spec, few_digits)
    epochs = [report for report in trainer.run() if isinstance(report, engine.EpochDone)]
    assert [report.is_last for report in epochs] == [False, True]
    assert trainer.stopped_early is not None
    assert trainer.stopped_early.best == epochs[0].metrics[metric]


def test_every_setting_of_an_optimizer_reaches_it() -> None:
    sgd = {"name": "sgd", "learning_rate": 0.1, "momentum": 0.8, "nesterov": True, "weight_decay": 0.3}
    adam = {"name": "adam", "learning_rate": 0.2, "beta1": 0.5, "beta2": 0.6, "epsilon": 0.1, "clip_norm": 2.0}
    decay = {"weight_decay": 0.4, "decay_biases": False}
    for settings in (sgd | {"decay_biases": False, "clip_norm": 3.0}, adam, adam | {"name": "adamw"} | decay):
        built = build.optimizer(resolve({"kind": "classifier", "optimizer": settings}).optimizer)
        assert {name: getattr(built, name) for name in settings if name != "name"} == {
            name: value for name, value in settings.items() if name != "name"
        }
        assert type(built) is {"sgd": engine.SGD}.get(str(settings["name"]), engine.Adam)


def test_the_seed_determines_the_initial_weights(digits: Dataset) -> None:
    def weights(seed: int) -> bytes:
        trainer = build.trainer(resolve({"kind": "classifier", "seed": seed}), digits)
        return trainer.state_dict().tensors["layers.0.weight"].tobytes()

    assert weights(1) == weights(1)
    assert weights(1) != weights(2)


def test_checkpoint_tensors_are_numbered_by_their_layers_position_in_the_spec(digits: Dataset) -> None:
    layers = [
        {"units": 4, "activation": "relu"},
        {"type": "dropout", "rate": 0.3},
        {"units": 1, "activation": "sigmoid"},
    ]
    trainer = build.trainer(resolve({"kind": "gan", "discriminator": {"layers": layers}}), digits)
    names = set(trainer.state_dict().tensors)
    assert {"generator.layers.0.weight", "discriminator.layers.0.weight", "discriminator.layers.2.weight"} <= names
    assert "discriminator.layers.1.weight" not in names  # dropout has no weights
