"""The tool of OpenSSF Model Signing accepts our certificates, and refuses each of many changes that we refuse, too."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.models.certificates.signing import Signer
from tapeline.verify import checking
from tapeline.verify.bundles import CertificateRefused
from tapeline.verify.claims import CHECKPOINT_FILE
from tapeline.verify.manifests import SIGNATURE
from tests.tapeline.verify import making

pytestmark = pytest.mark.nightly

# The tool imports OpenSSL, which its own requirements no longer bring.
REQUIREMENTS = ("model-signing==1.1.1", "pyopenssl")
UNREACHABLE = ("No matching distribution found", "Could not find a version", "ConnectionError", "Failed to establish")
Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter of an environment with the tool."""
    environment = tmp_path_factory.mktemp("tool") / "environment"
    venv.create(environment, with_pip=False)
    path = str(environment / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", path, "install", "--quiet"]
    result = subprocess.run([*pip, *REQUIREMENTS], capture_output=True, text=True, check=False)
    if result.returncode and any(text in result.stderr for text in UNREACHABLE):
        pytest.skip("the package registry cannot be reached")
    assert result.returncode == 0, result.stderr
    return path


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return making.signer(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, signer: Signer) -> Path:
    return making.make(tmp_path_factory.mktemp("certificates") / "first", signer)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory, signer: Signer) -> Path:
    """Of another model, by the same key."""
    return making.make(tmp_path_factory.mktemp("certificates") / "other", signer, value=0.25)


# Imports take seconds: one process verifies all folders.
PROGRAM = """
import json, pathlib, sys
import model_signing

verdicts = {}
for folder in map(pathlib.Path, sys.argv[2:]):
    try:
        verifier = model_signing.verifying.Config().use_elliptic_key_verifier(public_key=sys.argv[1])
        verifier.verify(folder, folder / "model.sig")
        verdicts[folder.name] = "accepted"
    except Exception as error:
        verdicts[folder.name] = f"refused: {type(error).__name__}: {error}"
print(json.dumps(verdicts))
"""


def flip(name: str, fraction: float) -> Change:
    def change(folder: Path) -> None:
        path = folder / name
        content = bytearray(path.read_bytes())
        position = int(len(content) * fraction)
        content[position] ^= 1
        path.write_bytes(bytes(content))

    return change


def edit(path: str, value: object) -> Change:
    """Set a field of the bundle."""

    def change(folder: Path) -> None:
        document = json.loads((folder / SIGNATURE).read_bytes())
        target = document
        *parents, field = path.split("/")
        for name in parents:
            target = target[name]
        target[field] = value
        (folder / SIGNATURE).write_text(json.dumps(document) + "\n")

    return change


def write(name: str, content: bytes) -> Change:
    def change(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)

    return change


def lengthen(folder: Path) -> None:
    path = folder / CHECKPOINT_FILE
    path.write_bytes(path.read_bytes() + b"\0")


def rename(folder: Path) -> None:
    (folder / CHECKPOINT_FILE).rename(folder / "weights.safetensors")


def remove(name: str) -> Change:
    return lambda folder: (folder / name).unlink()


def link(folder: Path) -> None:
    moved = (folder / CHECKPOINT_FILE).rename(folder.parent / f"{folder.name} moved")
    (folder / CHECKPOINT_FILE).symlink_to(moved)


def changes(other: Path) -> Iterator[tuple[str, Change]]:
    for index in range(20):
        yield f"byte of the checkpoint {index}", flip(CHECKPOINT_FILE, index / 20)
    for index in range(20):
        # Not in the last bytes of the file: their names of fields are not read by the tool.
        yield f"byte of the payload {index}", flip(SIGNATURE, 0.1 + index / 50)
    yield "no signature", edit("dsseEnvelope/signatures", [])
    yield "empty signature", edit("dsseEnvelope/signatures", [{"sig": "", "keyid": ""}])
    yield "another signature", edit("dsseEnvelope/signatures", [{"sig": "MAYCAQECAQE=", "keyid": ""}])
    yield "empty payload", edit("dsseEnvelope/payload", "e30=")
    yield "another payload type", edit("dsseEnvelope/payloadType", "text/plain")
    yield "another media type", edit("mediaType", "application/json")
    yield "another key", edit("verificationMaterial/publicKey/hint", "0" * 64)
    yield "signature of another model", write(SIGNATURE, (other / SIGNATURE).read_bytes())
    yield "checkpoint of another model", write(CHECKPOINT_FILE, (other / CHECKPOINT_FILE).read_bytes())
    yield "further file", write("pickle.bin", b"")
    yield "further file in a folder", write("a/b", b"")
    yield "missing file", remove(CHECKPOINT_FILE)
    yield "renamed file", rename
    yield "empty file", write(CHECKPOINT_FILE, b"")
    yield "longer file", lengthen
    yield "link", link
    yield "empty signature file", write(SIGNATURE, b"")
    yield "missing signature file", remove(SIGNATURE)


def test_the_command_accepts_a_certificate(python: str, original: Path, signer: Signer, tmp_path: Path) -> None:
    key = tmp_path / "key.pub"
    key.write_text(signer.public_key)
    command = [str(Path(python).with_name("model_signing")), "verify", "key", str(original)]
    command += ["--signature", str(original / SIGNATURE), "--public_key", str(key)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "Verification succeeded\n"), result.stderr


def test_the_tool_refuses_each_of_fifty_changes_and_so_do_we(
    python: str, original: Path, other: Path, signer: Signer, tmp_path: Path
) -> None:
    key = tmp_path / "key.pub"
    key.write_text(signer.public_key)
    folders = [Path(shutil.copytree(original, tmp_path / "unchanged"))]
    for name, change in changes(other):
        folders.append(Path(shutil.copytree(original, tmp_path / name)))
        change(folders[-1])
    assert len(folders) > 50
    command = [python, "-c", PROGRAM, str(key), *map(str, folders)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    verdicts = json.loads(result.stdout.splitlines()[-1])
    accepted = [name for name, verdict in verdicts.items() if verdict == "accepted"]
    assert accepted == ["unchanged"]
    for folder in folders[1:]:
        with pytest.raises(CertificateRefused):
            checking.verify(folder)
