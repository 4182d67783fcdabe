import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import CheckpointError, EarlyStopping, SettingError, StoppedEarly


def stopped_after(values: list[float], **settings) -> tuple[int, StoppedEarly] | None:
    """The epoch after which the run stops, and why."""
    stopping = EarlyStopping("metric", **settings)
    for epoch, value in enumerate(values, 1):
        stopping.update(epoch, {"metric": value, "other": 0.0})
        if stopping.stopped:
            return epoch, stopping.stopped
    return None


def test_it_stops_after_patience_epochs_without_improvement() -> None:
    falling = [3.0, 2.0, 1.0, 1.5, 0.9, 1.0, 1.0, 1.0, 0.0]
    settings = {"higher_is_better": False, "patience": 2}
    assert stopped_after(falling, **settings) == (7, StoppedEarly("metric", 0.9, 5, 2))
    assert stopped_after([-value for value in falling], higher_is_better=True, patience=2) == (
        7,
        StoppedEarly("metric", -0.9, 5, 2),
    )
    assert stopped_after(falling, higher_is_better=False, patience=4) is None
    assert stopped_after(falling, **settings, min_delta=0.2) == (5, StoppedEarly("metric", 1.0, 3, 2))
    assert stopped_after([1.0, math.nan, math.nan], **settings) == (3, StoppedEarly("metric", 1.0, 1, 2))


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=12),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.1]),
    st.booleans(),
    st.data(),
)
def test_a_resumed_count_stops_in_the_same_epoch(values, patience, min_delta, higher_is_better, data) -> None:
    def make() -> EarlyStopping:
        return EarlyStopping("metric", higher_is_better=higher_is_better, patience=patience, min_delta=min_delta)

    uninterrupted, resumed, resume_after = make(), make(), data.draw(st.integers(0, len(values)))
    for epoch, value in enumerate(values, 1):
        if epoch - 1 == resume_after:
            state = json.loads(json.dumps(resumed.state_dict()))
            resumed = make()
            resumed.load_state_dict(state, resume_after)
            assert resumed.stopped == uninterrupted.stopped
        for stopping in (uninterrupted, resumed):
            stopping.update(epoch, {"metric": value})
        assert resumed.stopped == uninterrupted.stopped


@pytest.mark.parametrize("state", [None, {"metric": "other"}, {"metric": "metric", "patience": 3, "min_delta": 0.0}])
def test_without_a_matching_state_counting_starts_at_the_current_epoch(state) -> None:
    stopping = EarlyStopping("metric", higher_is_better=True, patience=2)
    stopping.load_state_dict(state, 7)
    assert stopping.stopped is None
    for epoch, value in ((8, 0.5), (9, 0.4), (10, 0.5)):
        assert stopping.stopped is None
        stopping.update(epoch, {"metric": value})
    assert stopping.stopped == StoppedEarly("metric", 0.5, 8, 2)


def test_invalid_settings_metrics_and_states_are_rejected() -> None:
    for settings, name in (({"patience": 0}, "patience"), ({"patience": 1, "min_delta": -1}, "min_delta")):
        with pytest.raises(SettingError) as caught:
            EarlyStopping("metric", higher_is_better=True, **settings)
        assert caught.value.setting == name
    stopping = EarlyStopping("metric", higher_is_better=True, patience=2)
    with pytest.raises(SettingError, match="no metric 'metric'; there are a, b"):
        stopping.update(1, {"b": 1.0, "a": 1.0})
    for change in ({"best": "much"}, {"best_epoch": 9}, {"best_epoch": None}):
        with pytest.raises(CheckpointError, match="is invalid"):
            stopping.load_state_dict(stopping.state_dict() | change, 8)


def test_nan_is_never_the_best_value() -> None:
    settings = {"higher_is_better": False, "patience": 2}
    values = [math.nan, 3.0, 2.0, math.nan, math.nan]
    assert stopped_after(values, **settings) == (5, StoppedEarly("metric", 2.0, 3, 2))
    assert stopped_after([math.nan, math.nan, 1.0, 0.5, 0.2, 0.1], **settings) is None
    assert stopped_after([math.nan] * 9, **settings) is None


def test_a_count_in_the_opposite_direction_is_not_resumed() -> None:
    falling = EarlyStopping("metric", higher_is_better=False, patience=2)
    for epoch, value in enumerate([3.0, 2.0, 2.5], 1):
        falling.update(epoch, {"metric": value})
    state = json.loads(json.dumps(falling.state_dict()))
    opposite_direction, same_direction = (
        EarlyStopping("metric", higher_is_better=higher_is_better, patience=2) for higher_is_better in (True, False)
    )
    for stopping in (opposite_direction, same_direction):
        stopping.load_state_dict(state, 3)
        stopping.update(4, {"metric": 2.4})
    assert (opposite_direction.stopped, same_direction.stopped) == (None, StoppedEarly("metric", 2.0, 2, 2))
