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
    """Images of 6 x 6 pixels with one bright row, its number the label, under noise."""
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


def trainer(settings: str = "adam", epochs: int = 4, dtype=np.float32, seed: int = 0, **changes) -> ClassifierTrainer:
    loss, end, optimizer, schedule = SETTINGS[settings]
    rng = generator_for(seed, "init")
    model = Sequential(
        [Dense(36, 8, "tanh", rng=rng, dtype=dtype), Dropout(0.2), Dense(8, 3, end, rng=rng, dtype=dtype)]
    )
    arguments = {"train": stripes(50, 1), "validation": stripes(30, 2), "epochs": epochs, "batch_size": 16}
    arguments |= {"shuffle": True, "seed": seed, "dtype": dtype} | changes
    return ClassifierTrainer(model, loss, optimizer(), schedule, **arguments)


def finish(run) -> list[EpochDone]:
    return [report for report in run if isinstance(report, EpochDone)]


def same(a, b) -> bool:
    return checkpoint.dumps(a.state_dict()) == checkpoint.dumps(b.state_dict())


@pytest.mark.parametrize("settings", SETTINGS)
def test_it_learns_and_reports(settings: str) -> None:
    epochs = finish(trainer(settings, epochs=25).run())
    first, last = epochs[0].metrics, epochs[-1].metrics
    assert list(last)[:5] == ["train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate"]
    assert last["val_accuracy"] > 0.8
    assert last["train_loss"] < first["train_loss"]
    assert epochs[-1].confusion.sum() == 30
    assert np.trace(epochs[-1].confusion) / 30 == last["val_accuracy"]


def test_reports_count_epochs_and_steps() -> None:
    reports = list(trainer(epochs=2).run())
    assert [r for r in reports if isinstance(r, BatchDone)] == [
        BatchDone(epoch, step, 8) for epoch, step in [(1, 1), (1, 2), (1, 3), (1, 4), (2, 5), (2, 6), (2, 7), (2, 8)]
    ]
    epochs = [(r.epoch, r.epochs, r.step, r.is_last) for r in reports if isinstance(r, EpochDone)]
    assert epochs == [(1, 2, 4, False), (2, 2, 8, True)]


def impatient() -> EarlyStopping:
    """No gain of accuracy is above 1: it stops after the second epoch."""
    return EarlyStopping("val_accuracy", higher_is_better=True, patience=1, min_delta=1.0)


def test_an_early_stop_ends_the_run_for_good() -> None:
    run = trainer(
        epochs=9, early_stopping=EarlyStopping("val_accuracy", higher_is_better=True, patience=1, min_delta=1)
    )
    assert run.stopped_early is None
    epochs = finish(run.run())
    assert [(r.epoch, r.epochs, r.is_last) for r in epochs] == [(1, 9, False), (2, 9, True)]
    assert run.stopped_early == StoppedEarly("val_accuracy", epochs[0].metrics["val_accuracy"], 1, 1)
    assert list(run.run()) == []


def test_a_run_that_comes_to_its_end_is_not_stopped_early() -> None:
    run = trainer(
        epochs=2, early_stopping=EarlyStopping("val_accuracy", higher_is_better=True, patience=1, min_delta=1)
    )
    assert [r.is_last for r in finish(run.run())] == [False, True]
    assert run.stopped_early is None


def test_the_best_is_the_one_with_the_lowest_loss_of_the_most_accurate() -> None:
    run = trainer(epochs=20)
    results = [(report.metrics["val_accuracy"], -report.metrics["val_loss"], report) for report in finish(run.run())]
    assert len({accuracy for accuracy, *_ in results}) < 20, "no ties"
    accuracy, loss, best = max(results, key=lambda result: result[:2])
    assert [report.epoch for *_, report in results if report.is_best][-1] == best.epoch
    assert (run.best_epoch, run.best_accuracy, run.best_loss) == (best.epoch, accuracy, -loss)
    assert best.epoch != 1 + [accuracy for accuracy, *_ in results].index(accuracy), "it is the first of them, too"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("settings", SETTINGS)
def test_a_run_resumed_after_any_epoch_gives_the_same_bits(settings: str, dtype) -> None:
    whole = trainer(settings, dtype=dtype)
    expected = finish(whole.run())
    for stop in range(5):
        first = trainer(settings, dtype=dtype)
        for report in first.run() if stop else ():
            if isinstance(report, EpochDone) and report.epoch == stop:
                break
        state = checkpoint.loads(checkpoint.dumps(first.state_dict()))
        second = trainer(settings, dtype=dtype)
        second.load_state_dict(state)
        assert second.epoch == stop
        got = finish(second.run())
        assert [r.metrics for r in got] == [r.metrics for r in expected[stop:]]
        assert [r.is_best for r in got] == [r.is_best for r in expected[stop:]]
        assert same(second, whole)
        assert second.samples(5).confidences.tobytes() == whole.samples(5).confidences.tobytes()


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
    def make(**further) -> ClassifierTrainer:
        return trainer(**VARIANTS[variant](), **further)

    whole, plain = make(), trainer()
    expected = finish(whole.run())
    assert [r.metrics for r in finish(plain.run())] != [r.metrics for r in expected]
    for stop in range(1, len(expected)):
        first, second = make(), make()
        next(report for report in first.run() if isinstance(report, EpochDone) and report.epoch == stop)
        second.load_state_dict(checkpoint.loads(checkpoint.dumps(first.state_dict())))
        assert [r.metrics for r in finish(second.run())] == [r.metrics for r in expected[stop:]]
        assert same(second, whole)
        assert second.stopped_early == whole.stopped_early
    tape = make(replay=False)
    finish(tape.run())
    assert same(tape, whole)


def test_after_an_unfinished_epoch_a_state_must_be_loaded() -> None:
    whole, run = trainer(), trainer()
    finish(whole.run())
    state = run.state_dict()
    for report in run.run():
        if report.step == 6:
            break
        if isinstance(report, EpochDone):
            state = run.state_dict()
    for action in (run.state_dict, lambda: next(run.run())):
        with pytest.raises(EngineError, match="epoch 2 was not finished"):
            action()
    run.load_state_dict(state)
    finish(run.run())
    assert same(run, whole)


def test_an_average_is_what_is_validated_kept_and_shown() -> None:
    run, plain = trainer(average_decay=0.9), trainer()
    averaged, without = finish(run.run()), finish(plain.run())
    assert [r.metrics["train_loss"] for r in averaged] == [r.metrics["train_loss"] for r in without]
    user = trainer()
    user.model.load_state_dict(run.state_dict().tensors)  # which knows no averages
    assert (
        user._evaluate(user.validation, user._validation_labels, user._validation_targets)[0]
        == averaged[-1].metrics["val_loss"]
        != without[-1].metrics["val_loss"]
    )
    assert user.samples(9).confidences.tobytes() == run.samples(9).confidences.tobytes()


def test_seeds_differ() -> None:
    runs = [trainer(epochs=1, seed=seed) for seed in (0, 1)]
    for run in runs:
        finish(run.run())
    assert not same(*runs)


def test_samples_are_the_first_validation_images() -> None:
    run = trainer(epochs=20)
    finish(run.run())
    samples = run.samples(7)
    np.testing.assert_array_equal(samples.images, stripes(30, 2).images[:7])
    np.testing.assert_array_equal(samples.labels, stripes(30, 2).labels[:7])
    assert np.mean(samples.labels == samples.predictions) > 0.5
    assert np.all((samples.confidences > 1 / 3) & (samples.confidences <= 1))
    assert not np.shares_memory(samples.images, run.validation.images)
    assert len(run.samples(99).labels) == 30


def test_a_loss_that_is_not_finite_ends_the_run_at_once() -> None:
    run = trainer()
    run.optimizer = SGD(1e38)
    with pytest.raises(DivergedError) as caught:
        finish(run.run())
    assert (caught.value.epoch, caught.value.loss) == (1, "train_loss")
    assert caught.value.step >= 1
    assert not np.isfinite(caught.value.value)


def test_weights_that_the_last_update_of_an_epoch_spoils_end_the_run() -> None:
    run = trainer()
    reports = run.run()
    for _ in range(4):  # all steps of an epoch
        next(reports)
    run.model.parameters[0][0, 0] = np.inf
    with pytest.raises(DivergedError, match=r"layers\.0\.weight is infinite in epoch 1 after 4 steps"):
        next(reports)


def test_data_that_do_not_fit_are_refused() -> None:
    images = np.zeros((4, 6, 6), np.uint8)
    with pytest.raises(DataError, match="training images have no labels"):
        trainer(train=ImageData(images, None))
    with pytest.raises(DataError, match="range from 3 to 3"):
        trainer(validation=ImageData(images, np.full(4, 3)))
    with pytest.raises(ShapeError, match="25 pixels, but the model has 36 inputs"):
        trainer(train=ImageData(np.zeros((4, 5, 5), np.uint8), np.zeros(4, int)))
    with pytest.raises(SettingError, match="epochs 0"):
        trainer(epochs=0)
    for most in (-1, 6):
        with pytest.raises(SettingError, match=f"max_shift {most}"):
            trainer(max_shift=most)


def test_inputs_of_another_dtype_than_the_weights_are_refused() -> None:
    with pytest.raises(SettingError, match="dtype float64 for a model whose weights are float32"):
        ClassifierTrainer(
            trainer().model,
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


def test_states_that_do_not_fit_are_refused() -> None:
    run = trainer()
    finish(run.run())
    state = run.state_dict()
    with pytest.raises(CheckpointError, match="another kind of optimizer"):
        trainer("sgd").load_state_dict(state)
    with pytest.raises(CheckpointError, match="epoch 4, but this run has 2"):
        trainer(epochs=2).load_state_dict(state)
    with pytest.raises(CheckpointError, match="trainer 'gan'"):
        trainer().load_state_dict(checkpoint.State(state.tensors, state.state | {"trainer": "gan"}))
    for change in (
        {"best_epoch": "three"},
        {"best_epoch": 5},
        {"best_epoch": None},
        {"best_accuracy": 1.5},
        {"best_loss": None},
    ):
        with pytest.raises(CheckpointError, match="is invalid"):
            trainer().load_state_dict(checkpoint.State(state.tensors, state.state | change))
    with pytest.raises(CheckpointError, match=r"float32 .* float64"):
        trainer(dtype=np.float64).load_state_dict(state)
