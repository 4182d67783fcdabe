import pytest

from engine import SettingError, schedules


def test_constant_is_one() -> None:
    assert schedules.constant()(5, 10, 100) == 1


def test_step_multiplies_by_its_factor_after_the_given_epochs() -> None:
    schedule = schedules.step([2, 3], 0.5)
    assert [schedule(step, 10, 50) for step in (0, 19, 20, 29, 30, 49)] == [1, 1, 0.5, 0.5, 0.25, 0.25]


def test_one_cycle_rises_to_one_and_falls_almost_to_zero() -> None:
    schedule = schedules.one_cycle(warmup=0.3)
    factors = [schedule(step, 10, 100) for step in range(100)]
    assert factors[0] == pytest.approx(1 / 25)
    assert factors[29] == pytest.approx(1)
    assert factors[99] == pytest.approx(1 / 250_000)
    assert factors[:30] == sorted(factors[:30])
    assert factors[29:] == sorted(factors[29:], reverse=True)


def test_cosine_falls_to_its_end_value_after_a_linear_warmup() -> None:
    plain = [schedules.cosine(end=0.1)(step, 10, 100) for step in range(101)]
    assert plain[0] == 1
    assert plain[50] == pytest.approx(0.55)
    assert plain[100] == pytest.approx(0.1)
    assert plain == sorted(plain, reverse=True)
    warm = [schedules.cosine(warmup=0.2, start=0.5)(step, 10, 100) for step in range(100)]
    assert warm[:21] == pytest.approx([0.5 + 0.5 * step / 20 for step in range(21)])
    assert warm[60] == pytest.approx(0.5)


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
@pytest.mark.parametrize("schedule", [schedules.one_cycle(), schedules.cosine(), schedules.cosine(warmup=0.9)])
def test_schedules_stay_positive_and_at_most_one_in_runs_of_few_steps(steps: int, schedule: schedules.Schedule) -> None:
    assert all(0 < schedule(step, 1, steps) <= 1 for step in range(steps))


def test_settings_out_of_range_are_rejected() -> None:
    with pytest.raises(SettingError, match="factor 0"):
        schedules.step([1], 0)
    with pytest.raises(SettingError, match="warmup 1"):
        schedules.one_cycle(warmup=1)
    for settings in ({"warmup": 1}, {"start": 0}, {"end": -0.1}):
        with pytest.raises(SettingError) as caught:
            schedules.cosine(**settings)
        assert caught.value.setting in settings
