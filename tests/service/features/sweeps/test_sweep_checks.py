"""Validation of sweeps, and their estimated cost before they start."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select

from service.spec import validation
from service.storage.tables import Job
from tests.security.slow_inputs import large_sweep
from tests.service.features.sweeps.simulated_sweeps import BASE, SWEEP, finish, start


def test_a_dry_run_stores_nothing(client: FlaskClient) -> None:
    plan = client.post("/sweeps?dry_run=true", json=SWEEP)
    assert plan.status_code == 200
    assert (plan.json["trials"], plan.json["jobs"]) == (6, 12)
    assert (plan.json["epochs"], plan.json["epochs_without_halving"]) == (2 * (6 + 2 * 2 + 1), 48)
    assert len(plan.json["first_settings"]) == 6
    assert client.get("/sweeps").json["data"] == []


def test_a_dry_run_counts_the_epochs_of_each_trial(client: FlaskClient) -> None:
    space = {"/epochs": {"int": [1, 3]}, "/batch_size": {"choice": [50, 100]}}
    grid_plan = client.post("/sweeps?dry_run=true", json=SWEEP | GRID | {"space": space})
    assert (grid_plan.json["trials"], grid_plan.json["epochs"]) == (6, 2 * 2 * (1 + 2 + 3))
    random_plan = client.post("/sweeps?dry_run=true", json=SWEEP | {"space": space, "halving": None})
    assert random_plan.json["epochs"] == 2 * sum(settings["/epochs"] for settings in random_plan.json["first_settings"])
    tpe = {"name": "tpe", "trials": 12}
    tpe_plan = client.post("/sweeps?dry_run=true", json=SWEEP | {"space": space, "halving": None, "search": tpe})
    proposed_epochs = sum(settings["/epochs"] for settings in tpe_plan.json["first_settings"])
    assert tpe_plan.json["epochs"] == 2 * (proposed_epochs + 2 * 3)


def test_a_dry_run_bounds_the_epochs_of_asynchronous_halving(client: FlaskClient) -> None:
    halving = {"min_epochs": 1, "factor": 2, "mode": "asynchronous"}
    plan = client.post("/sweeps?dry_run=true", json=SWEEP | {"halving": halving, "seeds": [0]})
    assert plan.json["epochs"] == 6 + 5 + 2 * 4
    assert "synchronous halving trains 11 epochs" in plan.json["notes"][0]


def test_the_values_that_tpe_weighs_are_limited(client: FlaskClient) -> None:
    space = {"/batch_size": {"choice": list(range(1, 1001))}, "/optimizer/learning_rate": {"log": [0.001, 0.1]}}
    document = SWEEP | {"space": space, "halving": None, "seeds": [0]}

    def check(name: str, trials: int) -> Any:
        return client.post("/sweeps?dry_run=true", json=document | {"search": {"name": name, "trials": trials}}).json

    assert check("tpe", 2000)["trials"] == 2000
    space["/epochs"] = {"choice": [4]}
    [fault] = check("tpe", 2000)["errors"]
    assert (fault["pointer"], fault["code"]) == ("#/space", "too_large")
    assert "1,001 choices with 2,000 trials are 2,002,000 values" in fault["detail"]
    assert check("random", 2000)["trials"] == 2000


@pytest.mark.parametrize(
    ("budget", "openings"),
    [
        (30, ["asynchronous halving trains the most epochs, 19, if every result is better than those before it"]),
        (15, ["asynchronous halving may use the whole budget; synchronous halving trains 11 epochs"]),
        (11, []),
    ],
)
def test_a_dry_run_of_asynchronous_halving_never_exceeds_the_budget(
    client: FlaskClient, budget: int, openings: list[str]
) -> None:
    halving = {"min_epochs": 1, "factor": 2, "mode": "asynchronous"}
    document = SWEEP | {"halving": halving, "seeds": [0], "budget": {"epochs": budget}}
    plan = client.post("/sweeps?dry_run=true", json=document).json
    assert plan["epochs"] == min(budget, 19)
    assert [note.startswith(text) for note, text in zip(plan["notes"], openings, strict=True)] == [True] * len(openings)


def test_a_sweep_reports_its_maximum_number_of_epochs_from_the_start(client: FlaskClient) -> None:
    halving = {"min_epochs": 1, "factor": 2, "mode": "asynchronous"}
    assert start(client, halving=halving, seeds=[0])["epochs_at_most"] == 6 + 5 + 2 * 4
    assert start(client, halving=halving | {"mode": "synchronous"}, seeds=[0])["epochs_at_most"] == 6 + 3 + 2
    assert start(client, halving=halving, seeds=[0], budget={"epochs": 15})["epochs_at_most"] == 15
    space_with_epochs = SWEEP["space"] | {"/epochs": {"int": [1, 3]}}
    assert start(client, halving=None, space=space_with_epochs)["epochs_at_most"] is None
    listed = client.get("/sweeps").json["data"]
    assert [sweep["epochs_at_most"] for sweep in listed] == [None, 15, 11, 19]


def faults(client: FlaskClient, **changes: Any) -> dict[str, str]:
    document = {key: value for key, value in (SWEEP | changes).items() if value is not None}
    response = client.post("/sweeps", json=document)
    assert (response.status_code, response.json["code"]) == (422, "invalid_spec"), response.text
    return {fault["pointer"]: fault["detail"] for fault in response.json["errors"]}


def test_all_faults_are_reported_at_once(client: FlaskClient) -> None:
    details = faults(
        client,
        base=BASE | {"batch_size": 20},
        space={
            "/optimiser/learning_rate": {"log": [0.001, 0.3]},
            "/learning_rate": {"float": [0.1, 0.2]},
            "/batch_size": {"int": [0, 50]},
            "/layers/0/units": {"log": [8, 64]},
            "/seed": {"int": [0, 3]},
        },
        objective={"metric": "val_acuracy"},
        halving={"min_epochs": 4},
        seeds=[1, 1],
    )
    assert "did you mean 'optimizer.learning_rate'" in details["#/space/~1optimiser~1learning_rate"]
    assert "did you mean 'optimizer.learning_rate'" in details["#/space/~1learning_rate"]
    assert "#/space/~1batch_size/int/0" in details
    assert "#/space/~1layers~10~1units/log" in details
    assert "`seeds`" in details["#/space/~1seed"]
    assert "did you mean 'val_accuracy'" in details["#/objective/metric"]
    assert "less than the epochs of a trial, 4" in details["#/halving/min_epochs"]
    assert "listed twice" in details["#/seeds/1"]


def test_malformed_parts_hide_no_other_faults(client: FlaskClient) -> None:
    details = faults(
        client,
        base=BASE | {"dataset": "irsi", "epochs": -1},
        space={
            "/batch_size": {"chioce": [50, 100]},
            "/optimizer/learning_rat": {"choice": [0.1]},
            "/augmentation/max_shift": {"choice": []},
            "/optimizer/learning_rate": {"float": [0, 1], "step": 1e-12},
        },
        objective={"metric": "nope"},
        halving={"min_epochs": 0},
        paralel=3,
    )
    assert set(details) == {
        "#/base/dataset",
        "#/base/epochs",
        "#/space/~1batch_size/chioce",
        "#/space/~1optimizer~1learning_rat",
        "#/space/~1augmentation~1max_shift/choice",
        "#/space/~1optimizer~1learning_rate",
        "#/objective/metric",
        "#/halving/min_epochs",
        "#/paralel",
    }
    assert details["#/objective/metric"].startswith("a classifier does not report 'nope'")  # regardless of the dataset
    malformed_space = faults(client, space={"/batch_size": {"chioce": [50, 100]}}, budget={"epochs": 40})
    assert set(malformed_space) == {"#/space/~1batch_size/chioce"}, "that nothing is left to search follows from it"


@pytest.mark.parametrize("metric", ["saturation", "dead_units", "grad_norm/layers.7"])
@pytest.mark.parametrize("key", ["learning_rate", "", "/"])
def test_a_setting_that_is_not_a_pointer_is_reported_whatever_the_metric(
    client: FlaskClient, key: str, metric: str
) -> None:
    base = {"kind": "classifier", "epochs": 4}
    details = faults(client, base=base, space={key: {"log": [0.001, 0.1]}}, objective={"metric": metric})
    assert any(fault_pointer.startswith("#/space") for fault_pointer in details)
    gan = {"kind": "gan", "dataset": "mnist-10k", "epochs": 4}
    assert faults(client, base=gan, space={key: {"log": [0.001, 0.1]}}, objective={"metric": "d_penalty"})


@pytest.mark.parametrize(
    ("base", "pointer"),
    [
        ({"kind": "gan", "generator": "x"}, "/generator/layers/0/units"),
        ({"kind": "gan", "generator": 2.5}, "/generator/layers/0/units"),
        ({"kind": "gan", "generator": [{"units": 10}]}, "/generator/layers/0/units"),
        ({"kind": "classifier", "dataset": 5}, "/dataset/scale/0"),
        ({"kind": "classifier", "layers": "x"}, "/layers/0/units"),
        ({"kind": "classifier", "layers": [5]}, "/layers/0/units"),
    ],
)
def test_a_setting_inside_an_invalid_field_of_the_base_is_not_a_server_error(
    client: FlaskClient, base: dict[str, Any], pointer: str
) -> None:
    details = faults(client, base=base, space={pointer: {"choice": [1, 2]}}, objective=None, halving=None)
    assert any(fault_pointer.startswith("#/base/") for fault_pointer in details)


def test_faults_beyond_the_first_hundred_are_counted_once_but_not_listed(client: FlaskClient) -> None:
    for count in (99, 150, 400):
        response = client.post("/sweeps", json=SWEEP | {f"unknown_{number}": 1 for number in range(count)})
        assert (response.status_code, len(response.json["errors"])) == (422, min(count, 100))
        assert response.json["error_count"] == count


def test_the_space_supplies_a_setting_that_the_base_lacks(client: FlaskClient, worker: Any) -> None:
    [(fault_pointer, _)] = faults(client, base=NO_RATE, space={BATCH: TEN}).items()
    assert fault_pointer == "#/base/optimizer/learning_rate"
    space = {RATE: {"log": [0.01, 0.3]}, BATCH: {"choice": [10, 20]}}
    ended = finish(client, worker, start(client, base=NO_RATE, space=space, seeds=[0])["id"])
    assert ended["trials"]["failed"] == 0
    with worker.database.read() as session:
        assert {job.resolved["optimizer"]["name"] for job in session.scalars(select(Job))} == {"sgd"}


RATE, BATCH, UNITS = "/optimizer/learning_rate", "/batch_size", "/layers/0/units"
METRIC = "#/objective/metric"
HIDDEN = BASE | {"layers": [{"units": 8, "activation": "relu"}, {"units": 10, "activation": "softmax"}]}
ADAM = BASE | {"optimizer": "adam"}
NO_RATE: dict[str, Any] = {
    "kind": "classifier",
    "dataset": "iris",
    "epochs": 4,
    "optimizer": "sgd",
}  # the preset's is adamw
GAN = {"kind": "gan", "epochs": 10}
GRID: dict[str, Any] = {"search": None, "halving": None}
SMALL_GAN = GRID | {"base": GAN, "space": {BATCH: {"choice": [10]}}}
OPTIMIZERS, ONE, TEN = {"choice": ["adam", "sgd"]}, {"choice": [1]}, {"choice": [10]}
AT_RATE, AT_UNITS = "#/space/~1optimizer~1learning_rate", "#/space/~1layers~10~1units"


@pytest.mark.parametrize(
    ("changes", "pointer", "part"),
    [
        ({"base": {"kind": "classifier", "epochs": 0}}, "#/base/epochs", ""),
        ({"base": {"kind": "classifier", "dataset": "minst"}}, "#/base/dataset", "unknown dataset"),
        ({"search": {"name": "random"}}, "#/search/trials", "is missing"),
        ({"search": {"name": "grid"}}, "#/space/~1optimizer~1learning_rate", "a grid needs values"),
        ({"space": {}}, "#/space", "at least one setting"),
        ({"space": {"/batch_size": {"int": [1, 3000]}}, "search": None}, "#/space", "3,000 combinations"),
        ({"space": {"/batch_size": {"int": [1, 3], "choice": [4]}}}, "#/space/~1batch_size", "exactly one of"),
        ({"space": {"/batch_size": {"int": [3, 1]}}}, "#/space/~1batch_size", "must not exceed"),
        ({"space": {"/batch_size": {"int": [1, 10**19]}}}, "#/space/~1batch_size/int/1", "less than or equal"),
        ({"space": {"/batch_size": {"int": [-(10**18), 1]}}}, "#/space/~1batch_size/int/0", "greater than or equal"),
        ({"space": [8, 16]}, "#/space", "must be an object"),
        ({"space": {"/batch_size": [8, 16]}}, "#/space/~1batch_size", 'such as {"choice": [8, 16]}'),
        ({"space": {"/batch_size": 8}}, "#/space/~1batch_size", 'such as {"choice": [8, 16]}'),
        ({"space": {"/batch_size": {"ints": [1, 2]}}}, "#/space/~1batch_size/ints", "did you mean 'int'"),
        ({"space": {BATCH: {"uniform": [1, 2]}}}, "#/space/~1batch_size/uniform", "choice, float, int, log, step"),
        ({"space": {RATE: {"float": [0, 1], "step": 1e-12}}}, AT_RATE, "1,000,000,000"),
        ({"space": {RATE: {"float": [0, 1e308], "step": 1e-300}}}, AT_RATE, "1,000,000,000"),
        ({"space": {"/epochs": {"int": [2, 9]}}}, "#/space/~1epochs", "halving"),
        ({"space": {"batch_size": {"int": [0, 9]}}, **GRID}, "#/space/batch_size/int/0", "0: must be "),
        ({"space": {"optimizer.learning_rte": ONE}}, "#/space/optimizer.learning_rte", "'optimizer.learning_rate'"),
        ({"space": {"lr": ONE}}, "#/space/lr", "did you mean 'optimizer.learning_rate'"),
        ({"space": {BATCH: TEN, "batch_size": ONE}}, "#/space/batch_size", "is the same setting as /batch_size"),
        ({"space": {"/layers/00/units": TEN}}, "#/space/~1layers~100~1units", "did you mean 'layers.0.units'"),
        ({"space": {"/optimizer": OPTIMIZERS, RATE: ONE}}, AT_RATE, "part of optimizer"),
        ({"space": {RATE: ONE, "/optimizer": OPTIMIZERS}}, AT_RATE, "part of optimizer"),
        ({"space": {"/layers": {"choice": [BASE["layers"]]}, UNITS: TEN}}, AT_UNITS, "part of layers,"),
        ({"space": {"/layers/0": {"choice": BASE["layers"]}, UNITS: TEN}}, AT_UNITS, "part of layers.0,"),
        ({"objective": {"metric": "frechet_distance"}}, "#/objective/metric", "only GANs do"),
        ({"objective": {"metric": "test_accuracy"}}, METRIC, "measured once, after the training"),
        ({"objective": {"metric": "test_accuracy"}}, METRIC, "did you mean 'val_accuracy'"),
        ({"objective": {"metric": "val_roc_auc"}}, METRIC, "it needs 2 classes, and mnist-10k has 10"),
        ({"objective": {"metric": "grad_norm/layers.7", "goal": "minimize"}}, METRIC, "'grad_norm/layers.0'"),
        ({"objective": {"metric": "dead_units"}}, METRIC, "no such layer"),
        ({"base": HIDDEN, "objective": {"metric": "dead_units/layers.77"}}, METRIC, "'dead_units/layers.0'"),
        ({"base": HIDDEN, "objective": {"metric": "val_accuracy/layers.0"}}, METRIC, "does not report"),
        ({**SMALL_GAN, "objective": {"metric": "g_dead_units"}}, METRIC, "no such layer"),
        ({**SMALL_GAN, "objective": {"metric": "val_loss"}}, METRIC, "only classifiers and regressors do"),
        (
            {**SMALL_GAN, "objective": {"metric": "d_penalty"}, "base": GAN | {"discriminator": {"r1": 0}}},
            METRIC,
            "r1",
        ),
        ({"base": HIDDEN, "objective": {"metric": "nonsense"}}, METRIC, "it reports train_loss, "),
        ({"objective": {"metric": "learning_rate"}}, "#/objective/goal", "neither direction"),
        ({"budget": {"epochs": 1}}, "#/budget/epochs", "is too small for one trial"),
        ({"budget": {}}, "#/budget", "must have `epochs`, `seconds` or both"),
        ({"budget": {"seconds": 0}}, "#/budget/seconds", "must be greater than 0"),
        ({"space": {"/epochs": {"choice": [3, 2]}}, **GRID, "budget": {"epochs": 5}}, "#/budget/epochs", "6 epochs"),
        ({"space": {BATCH: {"choice": []}}}, "#/space/~1batch_size/choice", "must have at least 1 item; it has none"),
        ({"space": {RATE: {"choice": [1, 0.5, 1.0]}}}, f"{AT_RATE}/choice/2", "1.0 is listed twice"),
        ({"space": {"/optimizer/momentum": ONE}, "base": ADAM}, "#/space/~1optimizer~1momentum", "; only sgd"),
        ({"space": {RATE: {"choice": [-1]}}, "base": NO_RATE}, f"{AT_RATE}/choice/0", "greater than"),
        ({"parallel": 600, "search": {"name": "random", "trials": 600}}, "#/parallel", "jobs at a time"),
        ({"paralel": 3}, "#/paralel", "did you mean 'parallel'"),
        ({"space": {"/layers/0/units": {"choice": [11, 12]}}}, "#/space", "no trial has valid settings"),
    ],
)  # fmt: skip
def test_a_fault_has_a_pointer_and_a_detail(
    client: FlaskClient, changes: dict[str, Any], pointer: str, part: str
) -> None:
    details = faults(client, **changes)
    assert pointer in details
    assert part in details[pointer]


@pytest.mark.parametrize(
    ("metric", "changes"),
    [
        ("dead_units/layers.0", {"base": HIDDEN}),
        ("dead_units", {"base": HIDDEN}),
        ("dead_units", {"space": {"/layers": {"choice": [BASE["layers"], HIDDEN["layers"]]}}, "search": None}),
        ("val_roc_auc", {"base": {"kind": "classifier", "epochs": 4, "dataset": "breast-cancer"}}),
        ("d_penalty", {"base": GAN, "space": {"/discriminator/r1": {"choice": [0, 1]}}, **GRID}),
        ("d_dead_units", {"base": GAN, "space": {"/batch_size": {"choice": [50, 100]}}, **GRID}),
    ],
)
def test_a_metric_that_any_trial_reports_can_be_the_objective(
    client: FlaskClient, metric: str, changes: dict[str, Any]
) -> None:
    document = {key: value for key, value in (SWEEP | changes).items() if value is not None}
    plan = client.post("/sweeps?dry_run=true", json=document | {"objective": {"metric": metric}})
    assert plan.status_code == 200, plan.text


def test_a_range_can_have_a_fine_step(client: FlaskClient) -> None:
    space = {RATE: {"float": [0.001, 1], "step": 1e-8}}
    body = SWEEP | {"space": space, "search": {"name": "random", "trials": 20}}
    plan = client.post("/sweeps?dry_run=true", json=body)
    assert plan.status_code == 200, plan.text
    assert all(0.001 <= settings[RATE] <= 1 for settings in plan.json["first_settings"])


def test_a_gan_sweep_minimizes_the_frechet_distance_by_default(client: FlaskClient) -> None:
    plan = client.post(
        "/sweeps?dry_run=true",
        json={"base": {"kind": "gan", "epochs": 10}, "space": {"/batch_size": {"choice": [50, 100]}}},
    )
    assert plan.json["resolved"]["objective"] == {
        "metric": "frechet_distance",
        "goal": "minimize",
        "over_seeds": "mean",
    }
    too_early = client.post(
        "/sweeps",
        json={
            "base": {"kind": "gan", "epochs": 10},
            "space": {"/batch_size": {"choice": [50, 100]}},
            "halving": {"min_epochs": 1},
        },
    )
    assert too_early.json["errors"][0]["pointer"] == "#/halving/min_epochs"
    assert "every_epochs" in too_early.json["errors"][0]["detail"]


def test_a_setting_can_point_into_the_layers_of_the_preset(client: FlaskClient) -> None:
    plan = client.post(
        "/sweeps?dry_run=true",
        json={
            "base": {"kind": "classifier", "epochs": 2, "optimizer": "adam"},
            "space": {"/layers/0/units": {"int": [32, 64], "step": 32}, "/optimizer/beta1": {"choice": [0.5, 0.9]}},
        },
    )
    assert plan.status_code == 200, plan.text
    assert plan.json["trials"] == 4


def test_the_values_of_all_settings_are_checked_together(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The specs that are validated: one for each value of the longest list, and those of the base and the trials."""
    count, resolve = 0, validation.resolve

    def counting(document: Any) -> Any:
        nonlocal count
        count += 1
        return resolve(document)

    monkeypatch.setattr(validation, "resolve", counting)
    response = client.post("/sweeps?dry_run=true", json=large_sweep())
    assert response.status_code == 200, response.text
    assert count < 300 + 100 + 20
    count, sweep = 0, large_sweep()
    sweep["space"] = {pointer: {"choice": list(range(-1000, 0))} for pointer in sweep["space"]}
    response = client.post("/sweeps?dry_run=true", json=sweep)
    assert (response.status_code, len(response.json["errors"])) == (422, 100)
    assert count < 100 + 20


def test_faults_of_values_in_the_same_places_are_all_reported(client: FlaskClient) -> None:
    space = {
        "/optimizer/name": {"choice": ["adam", "sgd", "adagrad"]},
        "/optimizer/beta1": {"choice": [0.5, 0.9, 2]},
        BATCH: {"choice": [0, 50]},
        "/layers/0/activation": {"choice": ["softmax", "softmaxx", "relux"]},
    }
    details = faults(client, base=ADAM, space=space, search={"name": "random", "trials": 2}, halving=None)
    assert set(details) == {
        "#/space/~1optimizer~1name/choice/2",
        "#/space/~1optimizer~1beta1/choice/2",
        "#/space/~1batch_size/choice/0",
        "#/space/~1layers~10~1activation/choice/1",
        "#/space/~1layers~10~1activation/choice/2",
    }


def test_a_value_with_very_many_faults_hides_no_others(client: FlaskClient) -> None:
    layers = [{"units": -1, "activation": "relu"}] * 60 + [{"units": -1, "activation": "x"}] * 60
    space = {"/layers": {"choice": [layers]}, BATCH: {"choice": [0]}}
    details = faults(client, space=space, search={"name": "random", "trials": 2}, halving=None)
    assert set(details) == {"#/space/~1layers/choice/0", "#/space/~1batch_size/choice/0"}
