from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from flask.testing import FlaskClient

Train = Callable[..., list[str]]


@pytest.fixture
def train(client: FlaskClient, worker: Any, submit: Callable[..., str]) -> Train:
    """Jobs of one setting that end with these accuracies; gives their ids."""

    def train(
        values: Sequence[float | None], *, seeds: Sequence[int] = range(100), last: int = 2, **spec: Any
    ) -> list[str]:
        made = []
        for seed, value in zip(seeds, values, strict=False):
            made.append(submit(client, seed=seed, epochs=last, **spec))
            worker.claim()
            measured = {"val_accuracy": value} if value is not None else {}
            for epoch in range(1, last):
                early = {"val_accuracy": 0.99} if measured else {}
                worker.epoch(epoch, metrics=early | {"train_loss": 0.2})
            worker.epoch(last, metrics=measured | {"train_loss": 0.1})
            worker.succeed()
        return made

    return train


def compared(client: FlaskClient, a: Sequence[str], b: Sequence[str], **more: str) -> Any:
    return client.get("/comparisons", query_string={"a": ",".join(a), "b": ",".join(b), **more})


def test_pairs_by_seed_have_an_interval_and_a_sentence(client: FlaskClient, train: Train) -> None:
    a = train([0.912, 0.905, 0.9181, 0.9203, 0.9099], name="plain")
    b = train([0.9161, 0.9093, 0.9239, 0.9201, 0.9152], name="wide")
    found = compared(client, a, b[::-1]).json
    assert (found["metric"], found["paired"], found["n"]) == ("val_accuracy", True, 5)
    assert found["difference"] == pytest.approx(0.00386)
    assert [pair["seed"] for pair in found["pairs"]] == [0, 1, 2, 3, 4]
    assert found["interval"] == pytest.approx([0.000910, 0.006810], abs=1e-6)
    assert (
        found["sentence"]
        == "wide is better than plain by 0.39 points in val accuracy of the last epoch, 95% CI 0.09 to 0.68, 5 pairs."
    )
    turned = compared(client, b, a).json
    assert turned["difference"] == pytest.approx(-found["difference"])
    assert turned["sentence"] == found["sentence"], "which is better does not depend on the order"


def test_a_loss_is_better_where_it_is_lower(client: FlaskClient, train: Train) -> None:
    a, b = train([0.9, 0.9]), train([0.9, 0.9])
    found = compared(client, a, b, metric="train_loss").json
    assert found["difference"] == 0
    assert found["sentence"] == "a and b were equal in train loss of the last epoch, in each of 2 pairs."
    assert found["notes"] == []


def test_other_seeds_are_compared_by_welchs_test(client: FlaskClient, train: Train) -> None:
    a, b = train([0.5, 0.51, 0.52]), train([0.7, 0.72], seeds=[7, 8])
    found = compared(client, a, b).json
    assert (found["paired"], found["pairs"], found["n"]) == (False, [], 5)
    assert found["interval"][0] > 0
    assert found["sentence"].endswith("3 and 2 seeds.")
    assert "not paired" in found["notes"][0]


def test_one_seed_gets_no_interval_but_a_reason(client: FlaskClient, train: Train) -> None:
    a, b = train([0.5], name="plain"), train([0.7], name="wide")
    found = compared(client, a, b).json
    assert (found["interval"], found["p"]) == (None, None)
    assert found["difference"] == pytest.approx(0.2)
    assert "one seed" in found["why_no_interval"]
    assert found["sentence"] == (
        "wide was 20.00 points higher than plain in val accuracy of the last epoch, with one seed each. "
        "This does not show that it is better: the variation between seeds is unknown."
    )


def test_one_seed_against_several_gets_no_verdict_either(client: FlaskClient, train: Train) -> None:
    a, b = train([0.5], name="plain"), train([0.7, 0.8], name="wide")
    told = compared(client, a, b).json["sentence"]
    assert " higher than plain in val accuracy of the last epoch, with one seed of plain. This does not show " in told
    lower = compared(client, b[:1], a, metric="train_loss").json["sentence"]
    assert lower.startswith("wide and plain were equal in train loss ")


def test_differences_that_do_not_vary_give_no_verdict(client: FlaskClient, train: Train) -> None:
    a, b = train([20 / 21, 19 / 21]), train([19 / 21, 18 / 21])  # as on few validation examples; not equal as floats
    found = compared(client, a, b).json
    assert found["sentence"] == (
        "a was 4.76 points higher than b in val accuracy of the last epoch, in each of 2 pairs: "
        "the 95% CI has no width."
    )
    assert "do not vary" in found["notes"][0]


def test_equal_means_are_not_better_by_nothing(client: FlaskClient, train: Train) -> None:
    told = compared(client, train([0.5, 0.75]), train([0.75, 0.5])).json["sentence"]
    assert ": the means are equal, 95% CI -" in told


def test_values_of_different_epochs_are_noted(client: FlaskClient, worker: Any, train: Train) -> None:
    a = train([0.5, 0.6], name="short")
    b = train([0.7, 0.9], name="long", last=4)
    [note] = compared(client, a, b).json["notes"]
    assert note == "the epochs differ, which can explain a difference: short after epoch 2, long after epoch 4"
    assert compared(client, a, a).json["notes"] == []


def test_the_best_value_of_all_epochs(client: FlaskClient, train: Train) -> None:
    found = compared(client, train([0.5, 0.6]), train([0.7, 0.8]), of="best").json
    assert [found[side]["mean"] for side in "ab"] == [0.99, 0.99]
    assert " equal in best val accuracy, " in found["sentence"]


def test_jobs_without_a_value_are_left_out_and_named(client: FlaskClient, train: Train) -> None:
    a, b = train([0.5, None, 0.6]), train([0.7, 0.8, 0.9])
    found = compared(client, a, b).json
    assert [pair["seed"] for pair in found["pairs"]] == [0, 2]
    assert any(a[1] in note for note in found["notes"])


def test_a_group_that_is_not_one_setting_says_so(client: FlaskClient, train: Train) -> None:
    a = [*train([0.5]), *train([0.6], seeds=[1], batch_size=20)]
    assert "differ in more than the seed" in compared(client, a, train([0.7, 0.8])).json["notes"][0]


def test_an_impossible_comparison_says_why(client: FlaskClient, train: Train) -> None:
    a = train([0.5, 0.6])
    twice = compared(client, [a[0], *train([0.6])], a)
    assert (twice.status_code, twice.json["errors"][0]["parameter"]) == (400, "a")
    assert "both have seed 0" in twice.json["detail"]
    for metric, remedy in (("val_acuracy", "did you mean 'val_accuracy'?"), ("zzz", "train_loss, val_accuracy")):
        unknown = compared(client, a, a, metric=metric)
        assert (unknown.status_code, unknown.json["errors"][0]["parameter"]) == (400, "metric")
        assert remedy in unknown.json["detail"]
    assert compared(client, a, ["job_00000000000000000000000000"]).json["code"] == "job_not_found"
    assert client.get("/comparisons?a=x").status_code == 400


@pytest.mark.parametrize("query", ["a=&b=", "", "a=,&b="])
def test_a_comparison_of_nothing_asks_for_jobs(client: FlaskClient, query: str) -> None:
    errors = client.get(f"/comparisons?{query}").json["errors"]
    assert [(one["parameter"], one["detail"]) for one in errors] == [
        ("a", "name at least one job"),
        ("b", "name at least one job"),
    ]
