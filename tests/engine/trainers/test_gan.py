import numpy as np
import pytest

from engine import (
    SGD,
    Adam,
    BatchDone,
    CheckpointError,
    DataError,
    Dense,
    DivergedError,
    Dropout,
    EarlyStopping,
    EngineError,
    EpochDone,
    GanTrainer,
    GradientTape,
    ImageData,
    Latent,
    Sequential,
    SettingError,
    ShapeError,
    checkpoint,
    generator_for,
    initializers,
    ops,
    schedules,
)

SETTINGS = {
    "sgd": (lambda: SGD(0.01), "sum", schedules.step([2], 0.5), "uniform"),
    "momentum": (lambda: SGD(0.02, 0.5), "mean", schedules.constant(), "normal"),
    "adam": (lambda: Adam(0.01, 0.5), "mean", schedules.one_cycle(), "normal"),
}


def images(count: int = 26) -> ImageData:
    return ImageData(np.random.default_rng(0).integers(0, 256, (count, 4, 4), dtype=np.uint8), None, (-1.0, 1.0))


def make_trainer(settings: str = "adam", dropout: float = 0.3, dtype=np.float32, **changes) -> GanTrainer:
    optimizer, reduction, schedule, distribution = SETTINGS[settings]
    seed = changes.get("seed", 0)
    rng = generator_for(seed, "init")
    init = initializers.uniform(0.3)
    generator = Sequential(
        [
            Dense(5, 6, "tanh", rng=rng, dtype=dtype, initializer=init),
            Dense(6, 16, "tanh", rng=rng, dtype=dtype, initializer=init),
        ]
    )
    discriminator = Sequential(
        [
            Dense(16, 7, "leaky_relu", rng=rng, dtype=dtype, initializer=init),
            Dropout(dropout),
            Dense(7, 1, "sigmoid", rng=rng, dtype=dtype, initializer=init),
        ]
    )
    arguments = {"train": images(), "latent": Latent(5, distribution), "epochs": 3, "batch_size": 8, "shuffle": True}
    arguments |= {
        "seed": seed,
        "reduction": reduction,
        "skip_every": 3,
        "label_smoothing": 0.1,
        "dtype": dtype,
    } | changes
    return GanTrainer(generator, discriminator, optimizer(), optimizer(), schedule, schedule, **arguments)


def finish(reports) -> list[EpochDone]:
    return [report for report in reports if isinstance(report, EpochDone)]


def weights(model: Sequential) -> bytes:
    return b"".join(tensor.tobytes() for tensor in model.parameters)


def test_reports_have_losses_and_discriminator_outputs() -> None:
    reports = list(make_trainer().run())
    assert [r.step for r in reports if isinstance(r, BatchDone)] == list(range(1, 13))
    for report in finish(reports):
        assert {"d_fake", "d_loss", "d_real", "g_loss", "learning_rate"} <= set(report.metrics)
        assert 0 < report.metrics["d_real"] < 1
        assert 0 < report.metrics["d_fake"] < 1
        assert (report.confusion, report.is_best) == (None, False)


def test_the_averaged_generator_draws_samples_and_resumes_with_the_same_bits() -> None:
    uninterrupted, plain = make_trainer(average_decay=0.9), make_trainer()
    assert [r.metrics for r in finish(uninterrupted.run())] == [r.metrics for r in finish(plain.run())]
    assert not np.array_equal(uninterrupted.samples(5), plain.samples(5))
    for stop in (1, 2):
        interrupted, resumed, inference_trainer = (
            make_trainer(average_decay=0.9),
            make_trainer(average_decay=0.9),
            make_trainer(),
        )
        next(report for report in interrupted.run() if isinstance(report, EpochDone) and report.epoch == stop)
        state = checkpoint.loads(checkpoint.dumps(interrupted.state_dict()))
        inference_trainer.generator.load_state_dict(state.tensors, "generator.")  # a model without averaging
        np.testing.assert_array_equal(inference_trainer.samples(5), interrupted.samples(5))
        resumed.load_state_dict(state)
        finish(resumed.run())
        assert checkpoint.dumps(resumed.state_dict()) == checkpoint.dumps(uninterrupted.state_dict())
        np.testing.assert_array_equal(resumed.samples(5), uninterrupted.samples(5))


def test_a_resumed_run_stops_early_after_the_same_epoch_and_stays_stopped() -> None:
    def make() -> GanTrainer:
        return make_trainer(early_stopping=EarlyStopping("d_loss", higher_is_better=False, patience=1, min_delta=9.0))

    uninterrupted, interrupted, resumed = make(), make(), make()
    assert [(r.epoch, r.is_last) for r in finish(uninterrupted.run())] == [(1, False), (2, True)]
    next(report for report in interrupted.run() if isinstance(report, EpochDone))
    resumed.load_state_dict(checkpoint.loads(checkpoint.dumps(interrupted.state_dict())))
    assert [(r.epoch, r.is_last) for r in finish(resumed.run())] == [(2, True)]
    assert resumed.stopped_early == uninterrupted.stopped_early is not None
    final_state = checkpoint.dumps(uninterrupted.state_dict())
    assert checkpoint.dumps(resumed.state_dict()) == final_state
    restarted = make()
    restarted.load_state_dict(checkpoint.loads(final_state))
    for trainer in (uninterrupted, restarted):
        assert list(trainer.run()) == []
        assert trainer.stopped_early == resumed.stopped_early
        assert checkpoint.dumps(trainer.state_dict()) == final_state


def test_both_losses_of_an_undecided_discriminator_are_log_two() -> None:
    trainer = make_trainer("sgd", label_smoothing=0.0)
    for tensor in trainer.discriminator.parameters:
        tensor[...] = 0
    trainer.trained[1].optimizer, trainer.trained[0].optimizer = SGD(1e-9), SGD(1e-9)
    metrics = next(iter(finish(trainer.run()))).metrics
    assert metrics["g_loss"] == pytest.approx(np.log(2))
    assert metrics["d_loss"] == pytest.approx(np.log(2))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_one_step_follows_the_written_out_losses(reduction: str) -> None:
    trainer = make_trainer(
        "sgd", dropout=0.0, dtype=np.float64, reduction=reduction, skip_every=None, batch_size=26, epochs=1
    )
    g, d = trainer.generator, trainer.discriminator
    g_before, d_before = g.state_dict(), d.state_dict()
    noise = trainer.latent.draw(generator_for(0, "latent", 0), 26, np.float64)
    reals = trainer.train.inputs(slice(None), np.float64)
    with GradientTape(persistent=True) as tape:
        fake, real = d(g(noise)), d(reals)
        g_loss = -np.sum(np.log(fake))
        d_loss = (-np.sum(0.9 * np.log(real) + 0.1 * np.log(1 - real)) - np.sum(np.log(1 - fake))) / 2
    scale = 0.01 if reduction == "sum" else 0.01 / 26
    expected_g = [
        w - scale * grad for w, grad in zip(g_before.values(), tape.gradient(g_loss, g.parameters), strict=True)
    ]
    expected_d = [
        w - scale * grad for w, grad in zip(d_before.values(), tape.gradient(d_loss, d.parameters), strict=True)
    ]
    del tape  # the tape holds the weights
    metrics = finish(trainer.run())[0].metrics
    for got, expected in zip(g.parameters + d.parameters, expected_g + expected_d, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-14)
    assert metrics["g_loss"] == pytest.approx(float(g_loss) / 26)
    assert metrics["d_loss"] == pytest.approx(float(d_loss) / 26)


def test_every_third_step_of_the_run_skips_the_discriminator() -> None:
    trainer = make_trainer()
    skipped, before = [], weights(trainer.discriminator)
    for report in trainer.run():
        if isinstance(report, BatchDone):
            after = weights(trainer.discriminator)
            skipped.append(after == before)
            before = after
    assert skipped == [step % 3 == 0 for step in range(12)]


def test_no_unused_gradient_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    products = []
    rules = ops.affine.rules

    def spy(argument: int):
        def rule(y, x, w, b):
            vjp, shape = rules[argument](y, x, w, b), w.shape
            return lambda g: (products.append((argument, shape)), vjp(g))[1]

        return rule

    monkeypatch.setattr(ops.affine, "rules", tuple(map(spy, range(3))))
    next(make_trainer(skip_every=None).run())
    inputs = sorted(shape for argument, shape in products if argument == 0)
    # Through the discriminator into the generator once, and inside the discriminator for its fakes and its reals.
    assert inputs == sorted([(7, 1), (16, 7), (6, 16), (7, 1), (7, 1)])
    assert len([1 for argument, _ in products if argument == 1]) == 2 + 2 * 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("settings", SETTINGS)
def test_a_run_resumed_after_any_epoch_produces_the_same_bits(settings: str, dtype) -> None:
    uninterrupted = make_trainer(settings, dtype=dtype)
    expected = finish(uninterrupted.run())
    for stop in range(4):
        interrupted = make_trainer(settings, dtype=dtype)
        for report in interrupted.run() if stop else ():
            if isinstance(report, EpochDone) and report.epoch == stop:
                break
        resumed = make_trainer(settings, dtype=dtype)
        resumed.load_state_dict(checkpoint.loads(checkpoint.dumps(interrupted.state_dict())))
        assert [r.metrics for r in finish(resumed.run())] == [r.metrics for r in expected[stop:]]
        assert checkpoint.dumps(resumed.state_dict()) == checkpoint.dumps(uninterrupted.state_dict())
        assert resumed.samples(4).tobytes() == uninterrupted.samples(4).tobytes()


def test_a_state_must_be_loaded_after_an_unfinished_epoch() -> None:
    trainer = make_trainer()
    next(trainer.run())
    for action in (trainer.state_dict, lambda: next(trainer.run())):
        with pytest.raises(EngineError, match="epoch 1 was not finished"):
            action()


def test_samples_come_from_the_same_noise_each_time() -> None:
    trainer = make_trainer()
    before = trainer.samples(4)
    assert (before.shape, before.dtype) == ((4, 4, 4), np.uint8)
    np.testing.assert_array_equal(trainer.samples(4), before)
    finish(trainer.run())
    assert not np.array_equal(trainer.samples(4), before)
    assert trainer.generate([[0.0] * 5]).shape == (1, 4, 4)
    with pytest.raises(ShapeError, match=r"\(1, 4\), but it must be \(count, 5\)"):
        trainer.generate([[0.0] * 4])
    for latent in ([[np.nan] * 5], [[np.inf] * 5], [["a"] * 5], [[0.0] * 5, [0.0]]):
        with pytest.raises(DataError, match="generate: latent"):
            trainer.generate(latent)


def test_latent_noise_has_the_requested_distribution() -> None:
    rng = np.random.default_rng(0)
    uniform, normal = (Latent(50, name).draw(rng, 200, np.float32) for name in ("uniform", "normal"))
    assert (uniform.shape, uniform.dtype) == ((200, 50), np.float32)
    assert (uniform.min(), uniform.max()) == pytest.approx((-1, 1), abs=1e-3)
    assert normal.std() == pytest.approx(1, abs=0.02)


def test_a_loss_that_is_not_finite_ends_the_run_in_that_epoch() -> None:
    trainer = make_trainer()
    trainer.trained[1].optimizer = SGD(1e38)
    with pytest.raises(DivergedError) as caught:
        finish(trainer.run())
    assert caught.value.loss == "g_loss"
    assert caught.value.epoch == 1


def test_non_finite_weights_after_the_last_update_of_an_epoch_end_the_run() -> None:
    trainer = make_trainer()
    reports = trainer.run()
    for _ in range(4):  # all steps of an epoch
        next(reports)
    trainer.discriminator.parameters[1][0] = np.nan
    with pytest.raises(DivergedError, match=r"discriminator\.layers\.0\.bias is NaN in epoch 1 after 4 steps"):
        next(reports)


def test_invalid_settings_are_rejected() -> None:
    with pytest.raises(ShapeError, match="do not fit 6 latent numbers"):
        make_trainer(latent=Latent(6))
    with pytest.raises(SettingError, match="skip_every 1 would never update"):
        make_trainer(skip_every=1)
    with pytest.raises(SettingError, match="label_smoothing 1"):
        make_trainer(label_smoothing=1.0)
    with pytest.raises(SettingError, match="neither uniform nor normal"):
        Latent(5, "cauchy")  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="dim 0"):
        Latent(0)


def test_states_that_do_not_fit_are_rejected() -> None:
    trainer = make_trainer()
    finish(trainer.run())
    state = trainer.state_dict()
    with pytest.raises(CheckpointError, match="another kind of optimizer"):
        make_trainer("sgd").load_state_dict(state)
    with pytest.raises(CheckpointError, match="trainer None"):
        make_trainer().load_state_dict(checkpoint.State(state.tensors))
    del state.tensors["generator.layers.1.bias"]
    with pytest.raises(CheckpointError, match=r"generator\.layers\.1\.bias is missing"):
        make_trainer().load_state_dict(state)
