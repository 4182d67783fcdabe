"""Exports of networks trained on photos prepare photos exactly as the service does."""

from __future__ import annotations

import ast
import base64
import io
import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image

from tests.service.onnx_sessions import session
from tests.service.web.inference.networks import post
from tests.service.web.inference.test_exports import TOLERANCE, export, extract_folder, run_card
from tests.service.web.inference.test_photos import trained

__all__ = ["trained"]

DATASETS = [
    (20, "auto", "24x16", "crop"),
    (90, "auto", "20", "pad"),
    pytest.param(90, "1", "20", "crop", marks=pytest.mark.nightly),
    pytest.param(0, "auto", "16x24", "pad", marks=pytest.mark.nightly),
    pytest.param(90, "auto", "20", "crop", marks=pytest.mark.nightly),
]


def save_image(image: Image.Image, path: Path, **options: Any) -> Path:
    file = io.BytesIO()
    image.save(file, "JPEG" if path.suffix == ".jpg" else "PNG", **options)
    path.write_bytes(file.getvalue())
    return path


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Files of each orientation and mode, larger and smaller than the model's images."""
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (12, 17, 4), np.uint8))
    larger = noise.resize((117, 83), Image.Resampling.BICUBIC)
    plain, large = larger.convert("RGB"), noise.convert("RGB").resize((317, 203), Image.Resampling.BICUBIC)
    paths = [save_image(larger, tmp_path / "alpha.png"), save_image(noise.convert("RGB"), tmp_path / "small.png")]
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        paths.append(save_image(large, tmp_path / f"{orientation}.jpg", exif=exif))
        paths.append(save_image(plain, tmp_path / f"{orientation}.png", exif=exif))
    paths += [save_image(plain.convert(mode), tmp_path / f"{mode}.png") for mode in ("L", "LA", "P", "1")]
    paths += [save_image(plain.convert(mode), tmp_path / f"{mode}.jpg") for mode in ("L", "CMYK")]
    paths.append(save_image(plain, tmp_path / "key.png", transparency=plain.getpixel((3, 3))))
    deep = Image.fromarray(rng.integers(0, 65536, (50, 60)).astype(np.uint16))
    return [*paths, save_image(deep, tmp_path / "deep.png")]


def predicted(client: FlaskClient, job_id: str, photos: list[Path]) -> tuple[Any, Any]:
    """The pixel levels that the service's network receives, and its probabilities."""
    images = [base64.b64encode(path.read_bytes()).decode() for path in photos]
    answer = post(client, job_id, "predict", images=images, explain=True)
    return np.round(np.array(answer["seen"]) * 255), np.array(answer["probabilities"])


def load_prepare(module: Path) -> Callable[[Path], Any]:
    """The ``prepare`` function of ``model.py``, loaded by itself so that torch is not needed."""
    [function] = [node for node in ast.parse(module.read_text()).body if getattr(node, "name", "") == "prepare"]
    namespace: dict[str, Any] = {}
    exec(compile(ast.Module([function], []), "model.py", "exec"), namespace)
    prepare: Callable[[Path], Any] = namespace["prepare"]
    return prepare


@pytest.mark.parametrize(("tint", "channels", "size", "fit"), DATASETS)
def test_an_exported_model_prepares_and_classifies_photos_like_the_service(
    client: FlaskClient, trained: Any, photos: list[Path], tmp_path: Path, tint: int, channels: str, size: str, fit: str
) -> None:  # fmt: skip
    job_id, _ = trained(tint=tint, channels=channels, size=size, fit=fit)
    seen, expected = predicted(client, job_id, photos)
    folder = extract_folder(export(client, job_id, "huggingface").data, tmp_path)
    card, prepare = run_card(folder), load_prepare(folder / "torch" / "model.py")
    for number, path in enumerate(photos):
        np.testing.assert_array_equal(prepare(path), seen[number], str(path))
        np.testing.assert_array_equal(card["prepare"](path), seen[number], str(path))
        assert np.abs(card["predict"](card["prepare"](path)) - expected[number]).max() < TOLERANCE
    model = session((folder / "model.onnx").read_bytes())
    (computed,) = model.run(None, {"images": np.stack([prepare(path) for path in photos])})
    assert np.abs(computed - expected).max() < TOLERANCE
    facts = json.loads(model.get_modelmeta().custom_metadata_map["photo_preparation"])
    assert {"crop": "cropped evenly", "pad": "with black borders"}[fit] in (folder / "README.md").read_text()
    resize = {"crop": {"resize": "cover", "crop": "centre"}, "pad": {"resize": "contain", "pad": "black"}}[fit]
    assert facts.items() >= (resize | {"filter": "box"}).items()
    channel_count = 3 if seen.ndim == 4 else 1
    assert (facts["height"], facts["width"], facts["channels"]) == (*seen.shape[1:3], channel_count)
    assert facts.get("grey", "").endswith("before scaling") == (channels == "1")


def test_a_model_trained_on_arrays_has_no_photo_preparation(
    client: FlaskClient, classifier: str, tmp_path: Path
) -> None:
    folder = extract_folder(export(client, classifier, "huggingface").data, tmp_path)
    metadata = session((folder / "model.onnx").read_bytes()).get_modelmeta().custom_metadata_map
    assert "photo_preparation" not in metadata
    assert "prepare" not in run_card(folder)
    assert "prepare" not in (folder / "torch" / "model.py").read_text()


@pytest.mark.nightly
def test_a_torch_module_matches_predict_on_photos(
    client: FlaskClient, trained: Any, photos: list[Path], tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    job_id, _ = trained(tint=20, channels="auto", size="24x16")
    _, expected = predicted(client, job_id, photos)
    namespace = runpy.run_path(str(extract_folder(export(client, job_id, "torch").data, tmp_path) / "model.py"))
    model = namespace["load"]()
    for path, row in zip(photos, expected, strict=True):
        assert np.abs(model.predict(namespace["prepare"](path)).numpy() - row).max() < TOLERANCE
