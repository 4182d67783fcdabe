"""A sweep of GANs on the whole service."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from service.local import LocalStack
from service.runtime.settings import Settings
from service.spec import validation
from service.sweeps.checks import objectives
from tapeline import Client

pytestmark = pytest.mark.nightly

SWEEP: dict[str, Any] = {
    "base": {
        "kind": "gan",
        "epochs": 2,
        "batch_size": 500,
        "latent": {"dim": 8},
        "generator": {"layers": [{"units": 16, "activation": "relu"}, {"units": 784, "activation": "tanh"}]},
        "discriminator": {"layers": [{"units": 16, "activation": "leaky_relu"}, {"units": 1, "activation": "sigmoid"}]},
        "health": {"every_epochs": 1},
        "samples": {"count": 9},
    },
    "seeds": [0, 1],
    "space": {"/optimizer/learning_rate": {"choice": [0.0001, 0.005]}},
    "halving": {"min_epochs": 1, "factor": 2},
}

TWO_CLASSES: dict[str, Any] = {
    "kind": "classifier",
    "dataset": "breast-cancer",
    "layers": [
        {"units": 8, "activation": "relu"},
        {"type": "dropout", "rate": 0.1},
        {"type": "layer_norm", "activation": "tanh"},
        {"units": 2, "activation": "softmax"},
    ],
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    home = tmp_path_factory.mktemp("home")
    environ = {"TAPELINE_HOME": str(home), "TAPELINE_PORT": "0", "TAPELINE_WORKERS": "2"}
    with LocalStack(Settings.from_env(environ, cores=2)) as running, Client(running.url) as client:
        yield client


def test_the_gan_with_the_lower_frechet_distance_is_promoted_and_wins(client: Client) -> None:
    sweep = client.sweep(SWEEP)
    assert sweep["objective"] == {"metric": "frechet_distance", "goal": "minimize", "over_seeds": "mean"}
    sweep.wait(timeout_s=300)
    assert (sweep.status, sweep["epochs_trained"], sweep["trials"]["stopped"]) == ("succeeded", 2 * (2 + 1), 1)
    decisions = sweep.decisions()
    first_distances = {
        event["data"]["trial"]: event["data"]["value"]
        for event in decisions
        if event["type"] == "result" and event["data"]["rung"] == 0
    }
    better = min(first_distances, key=lambda trial: first_distances[trial])
    assert [event["data"]["trials"] for event in decisions if event["type"] == "promote"] == [
        [[better, first_distances[better]]]
    ]
    assert sweep["best_trial"] == better
    repeated = client.sweep(SWEEP | {"reuse": "never"}).wait(timeout_s=300)
    assert repeated["sweep_digest"] == sweep["sweep_digest"]


@pytest.mark.parametrize(
    ("spec", "dataset", "classes"), [(SWEEP["base"], "mnist-10k", 10), (TWO_CLASSES, "breast-cancer", 2)]
)
def test_objectives_offer_exactly_the_metrics_that_a_job_reports(
    client: Client, spec: dict[str, Any], dataset: str, classes: int
) -> None:
    short = spec | {"epochs": 1, "seed": 0}
    job = client.submit(short).wait(timeout_s=300)
    assert set(job.metrics) == set(objectives.reported(validation.resolve(short), dataset, classes))
