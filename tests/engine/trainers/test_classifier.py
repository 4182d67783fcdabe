import numpy as np
import pytest

from engine import (
    SGD,
    Adam,
    BatchDone,
    BinaryCrossEntropy,
    CheckpointError,
    ClassifierTrainer,
    DataError,
    Dense,
    DivergedError,
    Dropout,
    EarlyStopping,
    EngineError,
    EpochDone,
    ImageData,
    Sequential,
    SettingError,
    ShapeError,
    SoftmaxCrossEntropy,
    SquaredError,
    StoppedEarly,
    checkpoint,
    generator_for,
    schedules,
)


def stripes(count: int, seed: int) -> ImageData:
    """Noisy images of 6 x 6 pixels with one bright row, whose number is the label."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    images = rng.integers(0, 90, (count, 6, 6), dtype=np.uint8)
    images[np.arange(count), labels] += 60
    return ImageData(images, labels.astype(np.uint8))


SETTINGS = {
    "sgd": (SquaredError("sum"), "sigmoid", lambda: SGD(0.05), schedules.step([2], 0.5)),
    "momentum": (BinaryCrossEntropy(), "sigmoid", lambda: SGD(0.1, 0.9), schedules.constant()),
    "adam": (SoftmaxCrossEntropy(label_smoothing=0.1), "softmax", lambda: Adam(0.01), schedules.one_cycle()),
}


def make_trainer(
    settings: str = "adam", epochs: int = 4, dtype=np.float32, seed: int = 0, **changes
) -> ClassifierTrainer:
    loss, output_activation, optimizer, schedule = SETTINGS[settings]
    rng = generator_for(seed, "init")
    model = Sequential(
        [Dense(36, 8, "tanh", rng=rng, dtype=dtype), Dropout(0.2), Dense(8, 3, output_activation, rng=rng, dtype=dtype)]
    )
    arguments = {"train": stripes(50, 1), "validation": stripes(30, 2), "epochs": epochs, "batch_size": 16}
    arguments |= {"shuffle": True, "seed": seed, "dtype": dtype} | changes
    return ClassifierTrainer(model, loss, optimizer(), schedule, **arguments)


def finish(reports) -> list[EpochDone]:
    return [report for report in reports if isinstance(report, EpochDone)]


def same_state(a, b) -> bool:
    return checkpoint.dumps(a.state_dict()) == checkpoint.dumps(b.state_dict())


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_classifier_learns_and_reports_metrics(settings: str) -> None:
    epochs = finish(make_trainer(settings, epochs=25).run())
    first, last = epochs[0].metrics, epochs[-1].metrics
    assert list(last)[:5] == ["train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate"]
    assert last["val_accuracy"] > 0.8
    assert last["train_loss"] < first["train_loss"]
    assert epochs[-1].confusion.sum() == 30
    assert np.trace(epochs[-1].confusion) / 30 == last["val_accuracy"]


def test_reports_count_epochs_and_steps() -> None:
    reports = list(make_trainer(epochs=2).run())
    assert [r for r in reports if isinstance(r, BatchDone)] == [
        BatchDone(epoch, step, 8) for epoch, step in [(1, 1), (1, 2), (1, 3), (1, 4), (2, 5), (2, 6), (2, 7), (2, 8)]
    ]
    epochs = [(r.epoch, r.epochs, r.step, r.is_last) for r in reports if isinstance(r, EpochDone)]
    assert epochs == [(1, 2, 4, False), (2, 2, 8, True)]


def impatient() -> EarlyStopping:
    """Stops after the second epoch, because no accuracy improves by more than 1."""
    return EarlyStopping("val_accuracy", higher_is_better=True, patience=1, min_delta=1.0)


def test_an_early_stop_ends_the_run_permanently() -> None:
    trainer = make_trainer(epochs=9, early_stopping=impatient())
    assert trainer.stopped_early is None
    epochs = finish(trainer.run())
    assert [(r.epoch, r.epochs, r.is_last) for r in epochs] == [(1, 9, False), (2, 9, True)]
    assert trainer.stopped_early == StoppedEarly("val_accuracy", epochs[0].metrics["val_accuracy"], 1, 1)
    assert list(trainer.run()) == []


def test_a_run_that_completes_its_last_epoch_is_not_stopped_early() -> None:
    trainer = make_trainer(epochs=2, early_stopping=impatient())
    assert [r.is_last for r in finish(trainer.run())] == [False, True]
    assert trainer.stopped_early is None


def test_the_best_epoch_has_the_lowest_loss_among_the_most_accurate() -> None:
    trainer = make_trainer(epochs=20)
    results = [
        (report.metrics["val_accuracy"], -report.metrics["val_loss"], report) for report in finish(trainer.run())
    ]
    assert len({accuracy for accuracy, *_ in results}) < 20, "no ties"
    accuracy, loss, best = max(results, key=lambda result: result[:2])
    assert [report.epoch for *_, report in results if report.is_best][-1] == best.epoch
    assert (trainer.best_epoch, trainer.best_accuracy, trainer.best_loss) == (best.epoch, accuracy, -loss)
    assert best.epoch != 1 + [accuracy for accuracy, *_ in results].index(accuracy), "it is the first of them, too"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("settings", SETTINGS)
def test_a_run_resumed_after_any_epoch_produces_the_same_bits(settings: str, dtype) -> None:
    uninterrupted = make_trainer(settings, dtype=dtype)
    expected = finish(uninterrupted.run())
    for stop in range(5):
        interrupted = make_trainer(settings, dtype=dtype)
        for report in interrupted.run() if stop else ():
            if isinstance(report, EpochDone) and report.epoch == stop:
                break
        state = checkpoint.loads(checkpoint.dumps(interrupted.state_dict()))
        resumed = make_trainer(settings, dtype=dtype)
        resumed.load_state_dict(state)
        assert resumed.epoch == stop
        got = finish(resumed.run())
        assert [r.metrics for r in got] == [r.metrics for r in expected[stop:]]
        assert [r.is_best for r in got] == [r.is_best for r in expected[stop:]]
        assert same_state(resumed, uninterrupted)
        assert resumed.samples(5).confidences.tobytes() == uninterrupted.samples(5).confidences.tobytes()


VARIANTS = {
    "shifts": lambda: {"max_shift": 1},
    "flips": lambda: {"flip": True},
    "cutouts": lambda: {"cutout": 2},
    "all augmentations": lambda: {"max_shift": 1, "flip": True, "cutout": 2},
    "averaged weights": lambda: {"average_decay": 0.9},
    "early stopping": lambda: {
        "epochs": 9,
        "early_stopping": EarlyStopping("train_loss", higher_is_better=False, patience=2, min_delta=0.05),
    },
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_option_has_an_effect_and_resumes_with_the_same_bits(variant: str) -> None:
    def make(**changes) -> ClassifierTrainer:
        return make_trainer(**VARIANTS[variant](), **changes)

    uninterrupted, plain = make(), make_trainer()
    expected = finish(uninterrupted.run())
    assert [r.metrics for r in finish(plain.run())] != [r.metrics for r in expected]
    for stop in range(1, len(expected)):
        interrupted, resumed = make(), make()
        next(report for report in interrupted.run() if isinstance(report, EpochDone) and report.epoch == stop)
        resumed.load_state_dict(checkpoint.loads(checkpoint.dumps(interrupted.state_dict())))
        assert [r.metrics for r in finish(resumed.run())] == [r.metrics for r in expected[stop:]]
        assert same_state(resumed, uninterrupted)
        assert resumed.stopped_early == uninterrupted.stopped_early
    tape = make(replay=False)
    finish(tape.run())
    assert same_state(tape, uninterrupted)


def test_a_state_must_be_loaded_after_an_unfinished_epoch() -> None:
    uninterrupted, trainer = make_trainer(), make_trainer()
    finish(uninterrupted.run())
    state = trainer.state_dict()
    for report in trainer.run():
        if report.step == 6:
            break
        if isinstance(report, EpochDone):
            state = trainer.state_dict()
    for action in (trainer.state_dict, lambda: next(trainer.run())):
        with pytest.raises(EngineError, match="epoch 2 was not finished"):
            action()
    trainer.load_state_dict(state)
    finish(trainer.run())
    assert same_state(trainer, uninterrupted)


def test_averaged_weights_are_validated_saved_and_sampled() -> None:
    trainer, plain_trainer = make_trainer(average_decay=0.9), make_trainer()
    averaged_reports, plain_reports = finish(trainer.run()), finish(plain_trainer.run())
    assert [r.metrics["train_loss"] for r in averaged_reports] == [r.metrics["train_loss"] for r in plain_reports]
    inference_trainer = make_trainer()
    inference_trainer.model.load_state_dict(trainer.state_dict().tensors)  # a model without averaging
    assert (
        inference_trainer._evaluate(inference_trainer.validation, inference_trainer._validation_labels)[0]
        == averaged_reports[-1].metrics["val_loss"]
        != plain_reports[-1].metrics["val_loss"]
    )
    assert inference_trainer.samples(9).confidences.tobytes() == trainer.samples(9).confidences.tobytes()


def test_different_seeds_train_to_different_states() -> None:
    trainers = [make_trainer(epochs=1, seed=seed) for seed in (0, 1)]
    for trainer in trainers:
        finish(trainer.run())
    assert not same_state(*trainers)


def test_samples_are_the_first_validation_images() -> None:
    trainer = make_trainer(epochs=20)
    finish(trainer.run())
    samples = trainer.samples(7)
    np.testing.assert_array_equal(samples.images, stripes(30, 2).images[:7])
    np.testing.assert_array_equal(samples.labels, stripes(30, 2).labels[:7])
    assert np.mean(samples.labels == samples.predictions) > 0.5
    assert np.all((samples.confidences > 1 / 3) & (samples.confidences <= 1))
    assert not np.shares_memory(samples.images, trainer.validation.images)
    assert len(trainer.samples(99).labels) == 30


def test_a_loss_that_is_not_finite_ends_the_run_in_that_epoch() -> None:
    trainer = make_trainer()
    trainer.trained[0].optimizer = SGD(1e38)
    with pytest.raises(DivergedError) as caught:
        finish(trainer.run())
    assert (caught.value.epoch, caught.value.loss) == (1, "train_loss")
    assert caught.value.step >= 1
    assert not np.isfinite(caught.value.value)


def test_non_finite_weights_after_the_last_update_of_an_epoch_end_the_run() -> None:
    trainer = make_trainer()
    reports = trainer.run()
    for _ in range(4):  # all steps of an epoch
        next(reports)
    trainer.model.parameters[0][0, 0] = np.inf
    with pytest.raises(DivergedError, match=r"layers\.0\.weight is infinite in epoch 1 after 4 steps"):
        next(reports)


def test_data_and_settings_that_do_not_fit_are_rejected() -> None:
    images = np.zeros((4, 6, 6), np.uint8)
    with pytest.raises(DataError, match="training images have no labels"):
        make_trainer(train=ImageData(images, None))
    with pytest.raises(DataError, match="range from 3 to 3"):
        make_trainer(validation=ImageData(images, np.full(4, 3)))
    with pytest.raises(ShapeError, match="25 pixels, but the model has 36 inputs"):
        make_trainer(train=ImageData(np.zeros((4, 5, 5), np.uint8), np.zeros(4, int)))
    with pytest.raises(SettingError, match="epochs 0"):
        make_trainer(epochs=0)
    for max_shift in (-1, 6):
        with pytest.raises(SettingError, match=f"max_shift {max_shift}"):
            make_trainer(max_shift=max_shift)


def test_a_dtype_other_than_that_of_the_weights_is_rejected() -> None:
    with pytest.raises(SettingError, match="dtype float64 for a model whose weights are float32"):
        ClassifierTrainer(
            make_trainer().model,
            SoftmaxCrossEntropy(),
            Adam(),
            schedules.constant(),
            train=stripes(50, 1),
            validation=stripes(30, 2),
            epochs=1,
            batch_size=16,
            shuffle=True,
            seed=0,
            dtype=np.float64,
        )


def test_states_that_do_not_fit_are_rejected() -> None:
    trainer = make_trainer()
    finish(trainer.run())
    state = trainer.state_dict()
    with pytest.raises(CheckpointError, match="another kind of optimizer"):
        make_trainer("sgd").load_state_dict(state)
    with pytest.raises(CheckpointError, match="epoch 4, but this run has 2"):
        make_trainer(epochs=2).load_state_dict(state)
    with pytest.raises(CheckpointError, match="trainer 'gan'"):
        make_trainer().load_state_dict(checkpoint.State(state.tensors, state.state | {"trainer": "gan"}))
    for change in (
        {"best_epoch": "three"},
        {"best_epoch": 5},
        {"best_epoch": None},
        {"best_accuracy": 1.5},
        {"best_loss": None},
    ):
        with pytest.raises(CheckpointError, match="is invalid"):
            make_trainer().load_state_dict(checkpoint.State(state.tensors, state.state | change))
    with pytest.raises(CheckpointError, match=r"float32 .* float64"):
        make_trainer(dtype=np.float64).load_state_dict(state)
