"""Generation of images by GANs."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image

from tests.service.web.inference.networks import GANS, decode_png, pointers, post


@pytest.mark.parametrize("name", GANS)
def test_the_jobs_own_seed_reproduces_its_samples(client: FlaskClient, train: Any, job: Any, name: str) -> None:
    trained = train("gan", **GANS[name])
    job_id = job(trained)
    samples = trained.trainer.samples(9)
    answer = post(client, job_id, "generate", count=9, seed=trained.spec.get("seed", 0))
    generated = np.stack([decode_png(image) for image in answer["images"]])
    np.testing.assert_array_equal(generated, samples)


def test_faults_of_a_generate_request_are_named(client: FlaskClient, gan: str) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"count": 0}, "#/count"),
        ({"count": 257}, "#/count"),
        ({"seed": -1}, "#/seed"),
        ({"seed": 1, "seeds": [1]}, "#"),
        ({"count": 4, "latent": [[0.0] * 100]}, "#"),
        ({"latent": [[0.0] * 99]}, "#/latent/0"),
        ({"latent": []}, "#/latent"),
        ({"count": 16, "steps": 18}, "#/steps"),
        ({"format": "jpeg"}, "#/format"),
        ({"latent": [[1e9] * 100]}, "#/latent/0/0"),
        ({"count": 200, "scale": 16, "format": "film"}, "#/scale"),
    ]
    for body, pointer in cases:
        problem = post(client, gan, "generate", 422, **body)
        assert (problem["code"], pointer in pointers(problem)) == ("invalid_input", True), body


def test_latent_points_can_be_sent_back(client: FlaskClient, gan: str) -> None:
    first = post(client, gan, "generate", count=3, seed=5, format="array", with_latent=True)
    assert np.array(first["latent"]).shape == (3, 100)
    again = post(client, gan, "generate", latent=first["latent"], format="array")
    np.testing.assert_allclose(again["images"], first["images"], atol=1e-5)
    assert again["latent"] is None
    fewer = post(client, gan, "generate", seeds=[5, 6], format="array", with_latent=True)
    assert fewer["latent"][0] == first["latent"][0]
    assert np.array(fewer["images"]).shape == (2, 28, 28)
    assert 0 <= np.min(fewer["images"]) < np.max(fewer["images"]) <= 1


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
def test_a_walk_interpolates_from_point_to_point(client: FlaskClient, train: Any, job: Any, distribution: str) -> None:
    job_id = job(train("gan", latent={"dim": 100, "distribution": distribution}))
    ends = np.array(post(client, job_id, "generate", seeds=[1, 2, 3], with_latent=True)["latent"])
    walk = post(client, job_id, "generate", seeds=[1, 2, 3], steps=4, with_latent=True)
    points = np.array(walk["latent"])
    assert points.shape == (9, 100)
    assert len(walk["images"]) == 9
    np.testing.assert_allclose(points[[0, 4, 8]], ends, atol=1e-6)
    lengths = np.linalg.norm(points, axis=1)
    if distribution == "uniform":
        np.testing.assert_allclose(points[1], 0.75 * ends[0] + 0.25 * ends[1], atol=1e-6)
    else:
        np.testing.assert_allclose(lengths[:5], np.linspace(lengths[0], lengths[4], 5), rtol=1e-5)
        assert np.linalg.norm((ends[0] + ends[1]) / 2) < 0.8 * lengths[2]  # the norm of a straight walk


def test_a_walk_between_opposite_points_stays_finite(client: FlaskClient, gan: str) -> None:
    point = [1.0] + [0.0] * 99
    walk = post(client, gan, "generate", latent=[point, [-1.0] + [0.0] * 99, [0.0] * 100], steps=2, with_latent=True)
    assert np.isfinite(np.array(walk["latent"])).all()


@pytest.mark.parametrize(("output_format", "file_format"), [("grid", "PNG"), ("film", "GIF")])
def test_all_images_can_be_returned_as_one_grid_or_film(
    client: FlaskClient, gan: str, output_format: str, file_format: str
) -> None:
    answer = client.post(
        f"/jobs/{gan}/generate", json={"seeds": [1, 2], "steps": 7, "format": output_format, "scale": 2}
    )
    assert answer.status_code == 200, answer.text
    image = Image.open(io.BytesIO(answer.data))
    assert image.format == file_format
    assert answer.headers["Tapeline-Checkpoint"] == "1"
    if output_format == "film":
        assert image.size == (56, 56)
        assert getattr(image, "n_frames", 1) == 8


def test_a_conditional_gan_generates_a_chosen_class(client: FlaskClient, train: Any, job: Any, gan: str) -> None:
    conditional = job(train("gan", conditional=True))
    options = {"count": 3, "format": "array"}
    by_number, by_name = (
        post(client, conditional, "generate", 200, **options, **{"class": class_id})["images"] for class_id in (7, "7")
    )
    assert by_number == by_name
    in_turn = post(client, conditional, "generate", 200, **options)["images"]
    assert [in_turn[i] == by_number[i] for i in range(3)] == [False, False, False]
    assert in_turn[1] == post(client, conditional, "generate", 200, **options, **{"class": 1})["images"][1]
    for invalid_class in (10, "ten", -1):
        problem = post(client, conditional, "generate", 422, **options, **{"class": invalid_class})
        assert problem["errors"][0]["pointer"].startswith("#/class")
    problem = post(client, gan, "generate", 422, **options, **{"class": 1})
    assert "not conditional" in problem["errors"][0]["detail"]
