"""Exports of networks trained on photos prepare a photo as the service does."""

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

from tests.service.web.inference.networks import ask
from tests.service.web.inference.test_exports import TOLERANCE, export, run_card, session, unpacked
from tests.service.web.inference.test_photos import trained

__all__ = ["trained"]

KINDS = [
    (20, "auto", "24x16"),
    pytest.param(90, "1", "20", marks=pytest.mark.slow),
    pytest.param(0, "auto", "16x24", marks=pytest.mark.slow),
    pytest.param(90, "auto", "20", marks=pytest.mark.slow),
]


def saved(image: Image.Image, path: Path, **options: Any) -> Path:
    file = io.BytesIO()
    image.save(file, "JPEG" if path.suffix == ".jpg" else "PNG", **options)
    path.write_bytes(file.getvalue())
    return path


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Files of each orientation and mode, larger and smaller than the images of the model."""
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (12, 17, 4), np.uint8))
    larger = noise.resize((117, 83), Image.Resampling.BICUBIC)
    plain, large = larger.convert("RGB"), noise.convert("RGB").resize((317, 203), Image.Resampling.BICUBIC)
    found = [saved(larger, tmp_path / "alpha.png"), saved(noise.convert("RGB"), tmp_path / "small.png")]
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        found.append(saved(large, tmp_path / f"{orientation}.jpg", exif=exif))
        found.append(saved(plain, tmp_path / f"{orientation}.png", exif=exif))
    found += [saved(plain.convert(mode), tmp_path / f"{mode}.png") for mode in ("L", "LA", "P", "1")]
    found += [saved(plain.convert(mode), tmp_path / f"{mode}.jpg") for mode in ("L", "CMYK")]
    found.append(saved(plain, tmp_path / "key.png", transparency=plain.getpixel((3, 3))))
    deep = Image.fromarray(rng.integers(0, 65536, (50, 60)).astype(np.uint16))
    return [*found, saved(deep, tmp_path / "deep.png")]


def predicted(client: FlaskClient, job_id: str, photos: list[Path]) -> tuple[Any, Any]:
    """The levels that the network of the service sees, and its probabilities."""
    sent = [base64.b64encode(path.read_bytes()).decode() for path in photos]
    answer = ask(client, job_id, "predict", images=sent, explain=True)
    return np.round(np.array(answer["seen"]) * 255), np.array(answer["probabilities"])


def prepare_of(module: Path) -> Callable[[Path], Any]:
    """The function of ``model.py``, alone: without torch."""
    [function] = [node for node in ast.parse(module.read_text()).body if getattr(node, "name", "") == "prepare"]
    space: dict[str, Any] = {}
    exec(compile(ast.Module([function], []), "model.py", "exec"), space)
    prepare: Callable[[Path], Any] = space["prepare"]
    return prepare


@pytest.mark.parametrize(("tint", "channels", "size"), KINDS)
def test_an_exported_model_takes_the_photos_that_the_service_takes(
    client: FlaskClient, trained: Any, photos: list[Path], tmp_path: Path, tint: int, channels: str, size: str
) -> None:
    job_id, _ = trained(tint=tint, channels=channels, size=size)
    seen, expected = predicted(client, job_id, photos)
    folder = unpacked(export(client, job_id, "huggingface").data, tmp_path)
    card, prepare = run_card(folder), prepare_of(folder / "torch" / "model.py")
    for number, path in enumerate(photos):
        np.testing.assert_array_equal(prepare(path), seen[number], str(path))
        np.testing.assert_array_equal(card["prepare"](path), seen[number], str(path))
        assert np.abs(card["predict"](card["prepare"](path)) - expected[number]).max() < TOLERANCE
    model = session((folder / "model.onnx").read_bytes())
    (found,) = model.run(None, {"images": np.stack([prepare(path) for path in photos])})
    assert np.abs(found - expected).max() < TOLERANCE
    facts = json.loads(model.get_modelmeta().custom_metadata_map["photo_preparation"])
    assert (facts["resize"], facts["filter"], facts["crop"]) == ("cover", "box", "centre")
    channel_count = 3 if seen.ndim == 4 else 1
    assert (facts["height"], facts["width"], facts["channels"]) == (*seen.shape[1:3], channel_count)
    assert facts.get("grey", "").endswith("before scaling") == (channels == "1")


def test_a_model_of_arrays_has_no_preparation_of_photos(client: FlaskClient, classifier: str, tmp_path: Path) -> None:
    folder = unpacked(export(client, classifier, "huggingface").data, tmp_path)
    told = session((folder / "model.onnx").read_bytes()).get_modelmeta().custom_metadata_map
    assert "photo_preparation" not in told
    assert "prepare" not in run_card(folder)
    assert "prepare" not in (folder / "torch" / "model.py").read_text()


@pytest.mark.reference
def test_a_torch_module_takes_photos(client: FlaskClient, trained: Any, photos: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("torch")
    job_id, _ = trained(tint=20, channels="auto", size="24x16")
    _, expected = predicted(client, job_id, photos)
    space = runpy.run_path(str(unpacked(export(client, job_id, "torch").data, tmp_path) / "model.py"))
    model = space["load"]()
    for path, row in zip(photos, expected, strict=True):
        assert np.abs(model.predict(space["prepare"](path)).numpy() - row).max() < TOLERANCE
