from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient

from tests.service.web.datasets.test_dataset_versions import SMALL, archive, send

Train = Callable[..., list[str]]


@pytest.fixture
def train(client: FlaskClient, worker: Any, submit: Callable[..., str]) -> Train:
    """Train jobs that differ only in the seed and end with these values of a metric; return their ids."""

    def train(
        values: Sequence[float | None],
        *,
        seeds: Sequence[int] = range(100),
        last_epoch: int = 2,
        metric: str = "val_accuracy",
        **spec: Any,
    ) -> list[str]:
        job_ids = []
        for seed, value in zip(seeds, values, strict=False):
            job_ids.append(submit(client, seed=seed, epochs=last_epoch, **spec))
            worker.claim()
            measured = {metric: value} if value is not None else {}
            for epoch in range(1, last_epoch):
                early = {metric: 0.99} if measured else {}
                worker.commit_epoch(epoch, metrics=early | {"train_loss": 0.2})
            worker.commit_epoch(last_epoch, metrics=measured | {"train_loss": 0.1})
            worker.succeed()
        return job_ids

    return train


def compare(client: FlaskClient, a: Sequence[str], b: Sequence[str], **more: str) -> Any:
    return client.get("/comparisons", query_string={"a": ",".join(a), "b": ",".join(b), **more})


def test_pairs_by_seed_have_an_interval_and_a_sentence(client: FlaskClient, train: Train) -> None:
    a = train([0.912, 0.905, 0.9181, 0.9203, 0.9099], name="plain")
    b = train([0.9161, 0.9093, 0.9239, 0.9201, 0.9152], name="wide")
    comparison = compare(client, a, b[::-1]).json
    assert (comparison["metric"], comparison["paired"], comparison["n"]) == ("val_accuracy", True, 5)
    assert comparison["difference"] == pytest.approx(0.00386)
    assert [pair["seed"] for pair in comparison["pairs"]] == [0, 1, 2, 3, 4]
    assert comparison["interval"] == pytest.approx([0.000910, 0.006810], abs=1e-6)
    assert comparison["sentence"] == (
        "wide is better than plain by 0.39 points in val accuracy of the last epoch, 95% CI over seeds 0.09 to 0.68, "
        "5 pairs."
    )
    swapped = compare(client, b, a).json
    assert swapped["difference"] == pytest.approx(-comparison["difference"])
    assert swapped["sentence"] == comparison["sentence"], "which is better does not depend on the order"


def test_equal_losses_are_reported_as_equal(client: FlaskClient, train: Train) -> None:
    a, b = train([0.9, 0.9]), train([0.9, 0.9], batch_size=20)
    comparison = compare(client, a, b, metric="train_loss").json
    assert comparison["difference"] == 0
    assert comparison["sentence"] == "a and b were equal in train loss of the last epoch, in each of 2 pairs."
    assert comparison["notes"] == []


def test_jobs_on_different_datasets_get_no_verdict(client: FlaskClient, train: Train) -> None:
    digests = [send(client, archive(seed=0))["sha256"]]
    old = train([0.5, 0.6], layers=SMALL["layers"], dataset="mine")
    digests.append(send(client, archive(seed=1))["sha256"])
    new = train([0.7, 0.9], layers=SMALL["layers"], dataset="mine")
    digits = train([0.9, 0.95])
    for a, b, names in (
        (old, digits, "mine and mnist-10k"),
        (old[:1], digits[1:], "mine and mnist-10k"),
        (old, new, " and ".join(f"mine@{digest[7:15]}" for digest in digests)),
    ):
        comparison = compare(client, a, b).json
        sentence = f"The data differ: {names}. Scores on different data are not comparable."
        assert comparison["sentence"] == comparison["why_no_interval"] == sentence
        numbers = ("difference", "interval", "p", "t", "degrees_of_freedom")
        assert {comparison[name] for name in numbers} == {None}
        assert (comparison["comparable"], comparison["pairs"], comparison["notes"]) == (False, [], [])
    pinned = train([0.6, 0.7], layers=SMALL["layers"], dataset=f"mine@{digests[0][7:15]}")
    assert compare(client, old, pinned).json["comparable"] is True, "the same data by another name"


def test_jobs_on_different_splits_get_no_verdict_unless_they_are_paired(client: FlaskClient, train: Train) -> None:
    data = {"name": "mnist-10k", "validation_fraction": 0.2}
    a, b = train([0.5, 0.6], dataset=data), train([0.7, 0.75], dataset=data, batch_size=20)
    assert compare(client, a, b).json["n"] == 2
    assert compare(client, a[:1], b[1:]).json["sentence"] == (
        "The data differ: mnist-10k (20% for validation, split seed 0) and mnist-10k "
        "(20% for validation, split seed 1)."
        " Scores on different data are not comparable."
        " Set dataset.split_seed to train jobs with different seeds on the same split."
    )
    folds = [train([0.8], dataset={"name": "mnist-10k", "folds": 5, "fold": fold}) for fold in (0, 4)]
    sentence = compare(client, *folds).json["sentence"]
    assert "mnist-10k (fold 0 of 5, split seed 0) and mnist-10k (fold 4 of 5, split seed 0)" in sentence
    fixed = data | {"split_seed": 7}
    c, d = train([0.5], dataset=fixed), train([0.6], dataset=fixed, seeds=[9])
    assert "one seed each" in compare(client, c, d).json["sentence"]


def test_the_same_jobs_get_no_verdict(client: FlaskClient, train: Train) -> None:
    a, again, other = train([0.9, 0.8]), train([0.9, 0.8], name="again"), train([0.9, 0.7])
    for b in (a, again):
        comparison = compare(client, a, b).json
        assert (comparison["sentence"], comparison["comparable"]) == ("These jobs are the same.", False)
        assert (comparison["difference"], comparison["notes"]) == (0, [])
    assert compare(client, a, other).json["comparable"] is True


@pytest.mark.parametrize("seeds", [[0, 1], [7, 8]], ids=["paired", "unpaired"])
def test_the_group_with_the_lower_loss_is_called_better(client: FlaskClient, train: Train, seeds: list[int]) -> None:
    high = train([0.9, 0.92], name="high", metric="val_loss")
    low = train([0.4, 0.44], name="low", metric="val_loss", seeds=seeds)
    for a, b in ((high, low), (low, high)):
        sentence = compare(client, a, b, metric="val_loss").json["sentence"]
        assert sentence.startswith(
            "low is better than high by 0.49 in val loss of the last epoch, 95% CI over seeds 0."
        )


def t_tail(t: float, degrees: float) -> float:
    """The probability of a value farther from zero than ``t``: Student's density, with t = sqrt(degrees) tan(angle),
    is proportional to cos(angle) ** (degrees - 1); integrated by the trapezoidal rule."""
    angles = np.linspace(0, np.pi / 2, 200_001)
    density = np.cos(angles).clip(0) ** (degrees - 1)
    areas = np.append(0, np.cumsum((density[1:] + density[:-1]) / 2))
    return float(1 - np.interp(np.arctan(t / degrees**0.5), angles, areas) / areas[-1])


def test_jobs_with_different_seeds_are_compared_unpaired_by_welchs_test(client: FlaskClient, train: Train) -> None:
    a, b = train([0.5, 0.51, 0.52]), train([0.7, 0.72], seeds=[7, 8])
    comparison = compare(client, a, b).json
    assert (comparison["paired"], comparison["pairs"], comparison["n"]) == (False, [], 5)
    # The variances are 1e-4 and 2e-4, so those of the means are 1e-4 / 3 and 1e-4.
    error = (1e-4 / 3 + 1e-4) ** 0.5
    degrees = error**4 / ((1e-4 / 3) ** 2 / 2 + 1e-4**2 / 1)
    assert comparison["difference"] == pytest.approx(0.2)
    assert comparison["p"] == pytest.approx(t_tail(0.2 / error, degrees), abs=1e-6)
    low, high = comparison["interval"]
    assert (low + high) / 2 == pytest.approx(0.2)
    assert t_tail((high - low) / 2 / error, degrees) == pytest.approx(0.05, abs=1e-6)
    assert low > 0
    assert comparison["sentence"].endswith("3 and 2 seeds.")
    assert "not paired" in comparison["notes"][0]


def test_a_difference_of_accuracies_has_an_interval_of_at_most_100_points(client: FlaskClient, train: Train) -> None:
    a, b = train([0.1, 0.5], name="plain"), train([0.95, 0.55], name="wide")
    comparison = compare(client, a, b).json
    assert comparison["interval"] == [-1, 1]
    assert comparison["sentence"] == (
        "The mean of wide is 45.00 points higher than that of plain in val accuracy of the last epoch, "
        "95% CI over seeds -100.00 to 100.00, 2 pairs: the interval contains 0, so no difference is shown."
    )


def test_a_comparison_on_few_examples_says_what_one_of_them_is_worth(
    client: FlaskClient, worker: Any, submit: Callable[..., str]
) -> None:
    job_ids = []
    for seed, value in ((0, 0.8), (1, 0.9), (0, 0.9), (1, 0.85)):
        job_ids.append(submit(client, seed=seed, epochs=1, name=f"job {len(job_ids) // 2}"))
        worker.claim()
        worker.commit_epoch(1, metrics={"val_accuracy": value}, confusion=[[40, 4], [5, 35]])
        worker.succeed()
    [note] = compare(client, job_ids[:2], job_ids[2:]).json["notes"]
    assert note.endswith("not the choice of the 84 validation examples: one of them is 1.19 points")


def test_a_comparison_of_single_seeds_has_no_interval_but_a_reason(client: FlaskClient, train: Train) -> None:
    a, b = train([0.5], name="plain"), train([0.7], name="wide")
    comparison = compare(client, a, b).json
    assert (comparison["interval"], comparison["p"]) == (None, None)
    assert comparison["difference"] == pytest.approx(0.2)
    assert "one seed" in comparison["why_no_interval"]
    assert comparison["sentence"] == (
        "wide was 20.00 points higher than plain in val accuracy of the last epoch, with one seed each. "
        "This does not show that it is better: the variation between seeds is unknown."
    )


def test_one_seed_against_several_gets_no_verdict(client: FlaskClient, train: Train) -> None:
    a, b = train([0.5], name="plain"), train([0.7, 0.8], name="wide")
    sentence = compare(client, a, b).json["sentence"]
    assert (
        " higher than plain in val accuracy of the last epoch, with one seed of plain. This does not show " in sentence
    )
    loss_sentence = compare(client, b[:1], a, metric="train_loss").json["sentence"]
    assert loss_sentence.startswith("wide and plain were equal in train loss ")


def test_differences_that_do_not_vary_give_no_verdict(client: FlaskClient, train: Train) -> None:
    a, b = train([20 / 21, 19 / 21]), train([19 / 21, 18 / 21])  # as on few validation examples; not equal as floats
    comparison = compare(client, a, b).json
    assert comparison["sentence"] == (
        "a was 4.76 points higher than b in val accuracy of the last epoch, in each of 2 pairs: "
        "the 95% CI has no width."
    )
    assert "do not vary" in comparison["notes"][0]


def test_equal_means_are_reported_as_equal(client: FlaskClient, train: Train) -> None:
    sentence = compare(client, train([0.5, 0.75]), train([0.75, 0.5])).json["sentence"]
    assert sentence.startswith("The mean of b is equal to that of a in val accuracy of the last epoch, 95% CI over")


def test_a_comparison_of_different_epochs_has_a_note(client: FlaskClient, worker: Any, train: Train) -> None:
    a = train([0.5, 0.6], name="short")
    b = train([0.7, 0.9], name="long", last_epoch=4)
    [note] = compare(client, a, b).json["notes"]
    assert note == "the epochs differ, which can explain a difference: short after epoch 2, long after epoch 4"
    assert compare(client, a, a).json["notes"] == []


def test_the_best_values_of_all_epochs_can_be_compared(client: FlaskClient, train: Train) -> None:
    comparison = compare(client, train([0.5, 0.6]), train([0.7, 0.8]), of="best").json
    assert [comparison[side]["mean"] for side in "ab"] == [0.99, 0.99]
    assert " equal in best val accuracy, " in comparison["sentence"]


def test_jobs_without_a_value_are_left_out_and_named(client: FlaskClient, train: Train) -> None:
    a, b = train([0.5, None, 0.6]), train([0.7, 0.8, 0.9])
    comparison = compare(client, a, b).json
    assert [pair["seed"] for pair in comparison["pairs"]] == [0, 2]
    assert any(a[1] in note for note in comparison["notes"])


def test_a_group_with_different_settings_has_a_note(client: FlaskClient, train: Train) -> None:
    a = [*train([0.5]), *train([0.6], seeds=[1], batch_size=20)]
    assert "differ in more than the seed" in compare(client, a, train([0.7, 0.8])).json["notes"][0]


def test_an_impossible_comparison_is_rejected_with_a_reason(client: FlaskClient, train: Train) -> None:
    a = train([0.5, 0.6])
    repeated_seed = compare(client, [a[0], *train([0.6])], a)
    assert (repeated_seed.status_code, repeated_seed.json["errors"][0]["parameter"]) == (400, "a")
    assert "both have seed 0" in repeated_seed.json["detail"]
    for metric, remedy in (("val_acuracy", "did you mean 'val_accuracy'?"), ("zzz", "train_loss, val_accuracy")):
        unknown = compare(client, a, a, metric=metric)
        assert (unknown.status_code, unknown.json["errors"][0]["parameter"]) == (400, "metric")
        assert remedy in unknown.json["detail"]
    assert compare(client, a, ["job_00000000000000000000000000"]).json["code"] == "job_not_found"
    assert client.get("/comparisons?a=x").status_code == 400


@pytest.mark.parametrize("query", ["a=&b=", "", "a=,&b="])
def test_an_empty_comparison_asks_for_jobs(client: FlaskClient, query: str) -> None:
    errors = client.get(f"/comparisons?{query}").json["errors"]
    assert [(error["parameter"], error["detail"]) for error in errors] == [
        ("a", "name at least one job"),
        ("b", "name at least one job"),
    ]
