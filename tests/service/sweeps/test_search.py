from __future__ import annotations

import math
import statistics
from typing import Any, Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.spec import strict_json
from service.sweeps.schema import Range
from service.sweeps.search import proposals, space, tpe
from service.sweeps.search.tpe import Past

SPACE = {
    "/rate": Range(log=[0.001, 1.0]),
    "/size": Range.model_validate({"int": [16, 256], "step": 16}),
    "/flag": Range(choice=[1, True, "1", None]),
    "/fraction": Range.model_validate({"float": [0.0, 1.0], "step": 0.1}),
}


def test_random_settings_are_within_their_ranges_and_reproducible() -> None:
    for trial in range(200):
        settings = space.random_settings(SPACE, 7, trial)
        assert 0.001 <= settings["/rate"] <= 1
        assert settings["/rate"] == float(f"{settings['/rate']:.6g}")
        assert settings["/size"] in range(16, 257, 16)
        assert settings["/fraction"] in [round(index / 10, 6) for index in range(11)]
        assert settings == space.random_settings(SPACE, 7, trial)


def test_a_random_setting_does_not_depend_on_the_other_settings() -> None:
    fewer = {name: span for name, span in SPACE.items() if name != "/size"}
    for trial in range(20):
        assert space.random_settings(fewer, 7, trial).items() <= space.random_settings(SPACE, 7, trial).items()


def test_the_logarithms_of_logarithmic_draws_are_uniform() -> None:
    rates = [space.random_settings(SPACE, 1, trial)["/rate"] for trial in range(2000)]
    assert statistics.median(rates) == pytest.approx(math.sqrt(0.001), rel=0.15)
    positions = sorted(math.log(rate / 0.001) / math.log(1000) for rate in rates)
    # Kolmogorov-Smirnov test: its critical value at 5% is 0.03 for 2000 draws.
    assert max(abs(position - (index + 0.5) / 2000) for index, position in enumerate(positions)) < 0.03


@given(
    low=st.floats(-1e6, 1e6) | st.integers(-10, 10).map(float),
    step=st.floats(1e-9, 1e3) | st.sampled_from([0.1, 0.01, 0.25, 1.0]),
    steps=st.integers(0, 300),
    rest=st.sampled_from([0.0, 0.5]),
)
@example(low=0.0, step=0.00009001, steps=9998, rest=0.0)
@example(low=1000.0, step=1e-4, steps=200, rest=0.5)  # neighbours are equal after rounding
def test_stepped_floats_are_those_of_the_complete_list(low: float, step: float, steps: int, rest: float) -> None:
    span = Range.model_validate({"float": [low, low + (steps + rest) * step], "step": step})
    high = low + (steps + rest) * step
    count = math.floor((high - low) / step + 1e-9) + 1
    listed = [float(f"{low + index * step:.6g}") for index in range(count)]
    values = space.values_of(span)
    assert values is not None
    assert list(values) == listed
    assert (values[-1], values[::-7]) == (listed[-1], listed[::-7])
    with pytest.raises(IndexError):
        values[count]
    for position in (0.0, 0.382, 0.999999):
        drawn = space.draw(span, position)
        assert drawn == listed[int(position * count)]
        assert tpe._converter(span)(drawn) == listed.index(drawn)


@given(low=st.integers(-1000, 1000), size=st.integers(0, 1000), step=st.integers(1, 50), position=st.floats(0, 0.999))
def test_a_drawn_integer_has_the_index_of_its_place_in_the_range(
    low: int, size: int, step: int, position: float
) -> None:
    span = Range.model_validate({"int": [low, low + size], "step": step})
    drawn = space.draw(span, position)
    assert tpe._converter(span)(drawn) == list(range(low, low + size + 1, step)).index(drawn)


def test_a_stored_sweep_may_exceed_the_limits_of_new_ones() -> None:
    fine = {"float": [0.0, 1.0], "step": 1e-10}
    ranges = proposals.ranges_of({"space": {"/rate": fine, "/size": {"int": [1, 2**60]}}})
    settings = space.random_settings(ranges, 0, 0)
    assert 0 <= settings["/rate"] <= 1
    assert settings["/size"] in range(1, 2**60 + 1)


def test_a_proposal_does_not_enumerate_large_ranges() -> None:
    large = {
        "/units": Range.model_validate({"int": [1, 2**50]}),
        "/rate": Range.model_validate({"float": [0.0, 0.9], "step": 0.0001}),
    }
    history = [Past(space.random_settings(large, 0, trial), float(trial), True) for trial in range(12)]
    proposal = tpe.suggest(large, history, goal="maximize", seed=0)
    assert proposal["/units"] in range(1, 2**50 + 1)
    assert 0 <= proposal["/rate"] <= 0.9


def test_a_choice_is_found_by_its_value_and_type() -> None:
    choices: list[Any] = [1, True, "1", None, 1.0, [1], [True], {"a": 1}, 1]
    convert = tpe._converter(Range(choice=choices))
    assert [convert(value) for value in choices] == [0, 1, 2, 3, 4, 5, 6, 7, 0]


def test_a_proposal_looks_up_past_choices_in_an_index(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[Any] = []
    monkeypatch.setattr(tpe, "canonical", lambda value: looked_at.append(value) or str(value))
    many = {"/units": Range(choice=list(range(1000)))}
    history = [Past({"/units": 999 - trial}, float(trial), True) for trial in range(50)]
    assert tpe.suggest(many, history, goal="maximize", seed=0)["/units"] in range(1000)
    assert len(looked_at) == 1000 + 50


def test_pointers_reach_into_lists_and_escape_slashes() -> None:
    document: dict[str, Any] = {"layers": [{"units": 1}, {"units": 2}], "a/b": {"c~d": 3}}
    assert space.look_up(document, "/layers/1/units") == 2
    assert space.look_up(document, "/a~1b/c~0d") == 3
    assert space.with_settings(document, {"/layers/1/units": 9})["layers"] == [{"units": 1}, {"units": 9}]
    assert document["layers"][1]["units"] == 2
    for missing in ("/layers/2/units", "/layers/x", "/layers/01/units", "/layers/\u0661/units", "/nothing", "/a/b"):
        with pytest.raises((LookupError, ValueError)):
            space.look_up(document, missing)
    assert set(strict_json.pointers(document)) == {"/layers/0/units", "/layers/1/units", "/a~1b/c~0d"}


def test_tpe_finds_better_settings_than_random_draws() -> None:
    def value(settings: dict[str, Any]) -> float:
        return -(math.log10(settings["/rate"] / 0.03) ** 2) - (settings["/size"] - 128) ** 2 / 40_000

    def best(*, use_tpe: bool, seed: int) -> float:
        history: list[Past] = []
        for trial in range(40):
            settings = space.random_settings(SPACE, seed, trial)
            if use_tpe and trial >= 10:
                settings = tpe.suggest(SPACE, history, goal="maximize", seed=seed)
            history.append(Past(settings, value(settings), True))
        return max(item.value or -9 for item in history)

    tpe_score = statistics.median(best(use_tpe=True, seed=seed) for seed in range(5))
    random_score = statistics.median(best(use_tpe=False, seed=seed) for seed in range(5))
    assert tpe_score > random_score


def test_a_proposal_is_determined_by_the_history_and_the_seed() -> None:
    history = [Past(space.random_settings(SPACE, 3, trial), float(trial % 5), trial < 12) for trial in range(14)]
    first = tpe.suggest(SPACE, history, goal="minimize", seed=3)
    assert first == tpe.suggest(SPACE, history, goal="minimize", seed=3)
    assert first != tpe.suggest(SPACE, history, goal="minimize", seed=4)
    assert any(first["/flag"] is choice or first["/flag"] == choice for choice in (1, True, "1", None))


@pytest.mark.parametrize("goal", ["maximize", "minimize"])
def test_failed_trials_count_as_the_worst_so_that_proposals_stay_away_from_them(
    goal: Literal["maximize", "minimize"],
) -> None:
    ranges = {"/fraction": Range.model_validate({"float": [0.0, 1.0]})}
    sign = -1 if goal == "maximize" else 1  # 0 would be the best

    def proposed(value_of_failed: float | None) -> list[float]:
        """Proposals after 16 trials, of which those in the lower half failed."""
        values = [value_of_failed] * 8 + [sign * value for value in (1.0, 2.0, 3.0, 4.0) * 2]
        history = [Past({"/fraction": (index + 0.5) / 16}, value, True) for index, value in enumerate(values)]
        return [tpe.suggest(ranges, history, goal=goal, seed=seed)["/fraction"] for seed in range(8)]

    proposals = proposed(None)
    assert min(proposals) > 0.5
    assert proposals == proposed(sign * 4.0)  # the worst of the others


def test_a_history_of_failed_trials_still_gives_a_proposal() -> None:
    history = [Past(space.random_settings(SPACE, 3, trial), None, True) for trial in range(12)]
    assert tpe.suggest(SPACE, history, goal="maximize", seed=3).keys() == SPACE.keys()
