"""The space of a sweep from the options of the command line."""

from __future__ import annotations

from typing import Any

import click
import pytest

from service.features.sweeps.search_space import range_text, seeds_of, space_of

BASE = {"batch_size": 50, "optimizer": {"name": "adam", "learning_rate": 1, "beta1": 0.9}, "layers": [{"units": 9}]}


@pytest.mark.parametrize(
    ("text", "span", "words"),
    [
        ("optimizer.learning_rate=0.001..0.3", {"log": [0.001, 0.3]}, "0.001 to 0.3, log"),
        ("optimizer.learning_rate=1e-4..1e-3", {"log": [1e-4, 1e-3]}, "0.0001 to 0.001, log"),
        ("optimizer.beta1=0.5..0.9", {"float": [0.5, 0.9]}, "0.5 to 0.9"),
        ("optimizer.beta1=0..1", {"float": [0, 1]}, "0 to 1"),
        ("optimizer.learning_rate=1..10", {"log": [1, 10]}, "1 to 10, log"),
        ("optimizer.clip_norm=1..5", {"float": [1, 5]}, "1 to 5"),
        ("generator.layers.0.units=8..16", {"int": [8, 16]}, "8 to 16"),
        ("layers.0.units=8..512", {"int": [8, 512]}, "8 to 512"),
        ("unknown=1..2", {"int": [1, 2]}, "1 to 2"),
        ("batch_size=50,100", {"choice": [50, 100]}, "50, 100"),
        ("optimizer=adam, sgd", {"choice": ["adam", "sgd"]}, "adam, sgd"),
        ('layers=[{"units": 9}],[{"units": 8}]', {"choice": [[{"units": 9}], [{"units": 8}]]}, "dense 9, dense 8"),
    ],
)
def test_a_setting_has_a_range_or_a_list(text: str, span: dict[str, Any], words: str) -> None:
    assert space_of([text], BASE) == {text.partition("=")[0]: span}
    assert range_text(span) == words


def test_the_last_part_of_a_name_is_enough_if_one_setting_has_it() -> None:
    for name in ("learning_rate", "lr"):
        assert space_of([f"{name}=0.1,0.2"], BASE) == {"optimizer.learning_rate": {"choice": [0.1, 0.2]}}
    two_rates = {name: {"learning_rate": 0.1} for name in ("generator_optimizer", "discriminator_optimizer")}
    assert space_of(["learning_rate=0.1,0.2"], two_rates) == {"learning_rate": {"choice": [0.1, 0.2]}}


@pytest.mark.parametrize(
    ("texts", "remedy"),
    [
        (["batch_size"], "--try expects FIELD=FROM..TO or FIELD=A,B,C; got 'batch_size'; for example --try"),
        (["optimizer..beta1=1,2"], "--try expects FIELD=FROM..TO"),
        (["batch_size=50"], "has one value: add others, or fix it with --set batch_size=50"),
        (["batch_size=100..50"], "the first number of a range is the smaller one"),
        (["optimizer=adam..sgd"], "a range has two numbers, FROM..TO; list other values: A,B,C"),
        (["batch_size=true..2"], "a range has two numbers"),
        (["seed=1,2"], "use --seeds 1,2"),
        (["batch_size=5,6", "batch_size=7,8"], "--try batch_size is given twice"),
    ],
)
def test_an_unreadable_setting_has_a_remedy(texts: list[str], remedy: str) -> None:
    with pytest.raises(click.UsageError) as error:
        space_of(texts, BASE)
    assert remedy in error.value.message


def test_seeds_are_a_number_or_a_list() -> None:
    assert (seeds_of("3"), seeds_of("7,11")) == ([0, 1, 2], [7, 11])
    for text in ("0", "-1", "x", "1,,2"):
        with pytest.raises(click.UsageError, match="--seeds expects a number of seeds, such as 5, or a list"):
            seeds_of(text)
    with pytest.raises(click.UsageError, match="got '4000000000'; a sweep has 1 to 100 seeds"):
        seeds_of("4000000000")
