from __future__ import annotations

from typing import Any

from flask.testing import FlaskClient

from service import kinds
from service.spec.schema import Kind


def dereferenced(schema: dict[str, Any], parts: dict[str, Any]) -> dict[str, Any]:
    """A field's schema, merged with that of the object that it refers to."""
    if "$ref" not in schema:
        return schema
    referenced = parts[schema["$ref"].rpartition("/")[2]]
    return {**referenced, **schema} if referenced.get("type") == "object" else schema


def test_every_field_of_a_spec_has_a_description(client: FlaskClient) -> None:
    parts = client.get("/schema.json").get_json(force=True)["$defs"]
    fields = {
        f"{part}.{name}": dereferenced(field, parts).get("description", "")
        for part, schema in parts.items()
        for name, field in schema.get("properties", {}).items()
        if "const" not in field
    }
    assert len(fields) > 80
    assert [name for name, text in fields.items() if not text.strip().endswith(".")] == []


def test_fields_that_depend_on_others_state_when_they_apply(client: FlaskClient) -> None:
    parts = client.get("/schema.json").get_json(force=True)["$defs"]
    conditions = {
        f"{part}.{name}": field["x-applies-when"]
        for part, schema in parts.items()
        for name, field in schema.get("properties", {}).items()
        if "x-applies-when" in field
    }
    assert conditions["Dense.negative_slope"] == {"activation": {"enum": ["leaky_relu"]}}
    assert {"Sgd.nesterov", "Sgd.decay_biases", "Cosine.start_factor"} <= conditions.keys()
    for field_name, condition in conditions.items():
        assert condition.keys() <= parts[field_name.partition(".")[0]]["properties"].keys(), field_name


def test_stop_on_offers_the_findings_of_the_jobs_kind(client: FlaskClient) -> None:
    parts = client.get("/schema.json").get_json(force=True)["$defs"]
    for part, kind in (("Health", Kind.CLASSIFIER), ("GanHealth", Kind.GAN)):
        assert set(parts[part]["properties"]["stop_on"]["x-choices"]) == set(kinds.of(kind).findings)


def test_presets_have_a_summary_and_measured_results(client: FlaskClient) -> None:
    presets = {(item["kind"], item["name"]): item for item in client.get("/presets").json["data"]}
    fast = presets["classifier", "fast"]
    assert fast["is_default"]
    assert "one-cycle" in fast["summary"]
    assert fast["reaches"][0]["dataset"] == fast["spec"]["dataset"]["name"]
    assert presets["gan", "stable"]["reaches"][0]["metric"] == "frechet_distance"
    assert all(item["reaches"] and item["summary"] for item in presets.values())


def test_a_dry_run_reports_the_shape_and_parameters_of_each_layer(client: FlaskClient) -> None:
    plan = client.post("/jobs?dry_run=true", json={"kind": "classifier", "preset": "conv"}).json
    [network] = plan["networks"]
    assert (network["pointer"], network["input_shape"]) == ("#/layers", [28, 28, 1])
    assert network["layers"][0] == {"type": "conv2d", "output_shape": [28, 28, 16], "parameters": 160}
    assert network["layers"][-1] == {"type": "dense", "output_shape": [10], "parameters": 1290}
    assert sum(layer["parameters"] for layer in network["layers"]) == plan["parameters"]
    plan = client.post("/jobs?dry_run=true", json={"kind": "gan"}).json
    assert [network["pointer"] for network in plan["networks"]] == ["#/generator/layers", "#/discriminator/layers"]


def test_a_dry_run_shows_shapes_up_to_the_first_layer_that_does_not_fit(client: FlaskClient) -> None:
    layers = [
        {"type": "conv2d", "filters": 4, "activation": "relu"},
        {"type": "max_pool2d", "size": 5},
        {"type": "dense", "units": 10, "activation": "softmax"},
    ]
    answer = client.post("/jobs?dry_run=true", json={"kind": "classifier", "layers": layers})
    assert answer.status_code == 422
    assert {fault["pointer"] for fault in answer.json["errors"]} == {"#/layers/1/size", "#/layers/2"}
    assert [layer["output_shape"] for layer in answer.json["networks"][0]["layers"]][:2] == [[28, 28, 4], [5, 5, 4]]
    assert answer.json["resolved"]["layers"][2]["units"] == 10
    assert "networks" not in client.post("/jobs", json={"kind": "classifier", "layers": layers}).json
