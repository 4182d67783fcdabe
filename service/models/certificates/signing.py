"""Who signs: a key in a file, which is made when it is first needed, or a command that has the key elsewhere."""

from __future__ import annotations

import os
import secrets
import shlex
import stat
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from service.errors import SigningUnavailable
from service.runtime.settings import Settings
from tapeline.verify import bundles, ecdsa
from tapeline.verify.bundles import CertificateRefused

log = structlog.get_logger("tapeline.certificates")

_COMMAND_TIMEOUT_S: Final = 30.0
_MAX_SIGNATURE_BYTES: Final = 72
"""Of ECDSA on P-256 in DER."""


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs statements.

    Attributes:
        kid: the id of its key.
        public_key: PEM.
        made_ms: when its key was made, as far as is known.
        sign_bytes: returns the signature of bytes, ECDSA with SHA-256 in DER.
    """

    kid: str
    public_key: str
    made_ms: int | None
    sign_bytes: Callable[[bytes], bytes]

    def sign(self, statement: bytes) -> bytes:
        """The bundle of a statement, one line without a line break.

        Raises:
            SigningUnavailable: what signs does not work, or signs with another key.
        """
        data = bundles.write(statement, self.sign_bytes(bundles.pae(statement)), self.kid)
        try:
            ecdsa.verify(bundles.read(data, "the new signature"), self.public_key)
        except CertificateRefused as error:
            raise SigningUnavailable(
                f"what TAPELINE_SIGNING_COMMAND returned is not a signature by the key in TAPELINE_SIGNING_KEY: {error}"
            ) from error
        return data


def open_signer(settings: Settings) -> Signer:
    """The signer of these settings. Its key is made if there is none.

    Raises:
        SigningUnavailable: the file is no usable key.
    """
    return _of_command(settings) if settings.signing_command else _of_file(settings.signing_key_file)


def _of_command(settings: Settings) -> Signer:
    try:
        key = ecdsa.load_public_key(settings.signing_key_file.read_text("ascii"), str(settings.signing_key_file))
    except (OSError, ValueError) as error:
        raise SigningUnavailable(
            f"with TAPELINE_SIGNING_COMMAND, TAPELINE_SIGNING_KEY must be the file of its public key: {error}"
        ) from error
    pem = ecdsa.to_pem(key)

    def sign_bytes(data: bytes) -> bytes:
        try:
            result = subprocess.run(
                shlex.split(settings.signing_command),
                input=data,
                capture_output=True,
                timeout=_COMMAND_TIMEOUT_S,
                check=False,
            )
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            raise SigningUnavailable(
                f"TAPELINE_SIGNING_COMMAND cannot be run ({type(error).__name__}): check its path and permissions"
            ) from error
        if result.returncode:
            log.error("the signing command failed", stderr=result.stderr[-1000:].decode("utf-8", "replace"))
            raise SigningUnavailable(
                f"TAPELINE_SIGNING_COMMAND ended with exit code {result.returncode}; the service's log has its output"
            )
        if not 0 < len(result.stdout) <= _MAX_SIGNATURE_BYTES:
            raise SigningUnavailable(
                f"TAPELINE_SIGNING_COMMAND wrote {len(result.stdout)} bytes; it must write an ECDSA signature in DER"
            )
        return result.stdout

    return Signer(ecdsa.kid_of(pem), pem, None, sign_bytes)


def _of_file(path: Path) -> Signer:
    try:
        if not path.exists():
            _create(path)
        status, data = path.stat(), path.read_bytes()
    except OSError as error:
        raise SigningUnavailable(f"the signing key {path} cannot be used: {error}") from error
    if status.st_mode & stat.S_IRWXO:
        raise SigningUnavailable(f"everybody may read the signing key: run chmod 600 {shlex.quote(str(path))}")
    private = _load(data, str(path))
    pem = ecdsa.to_pem(private.public_key())
    kid = ecdsa.kid_of(pem)
    return Signer(kid, pem, int(status.st_mtime) * 1000, lambda data: private.sign(data, ec.ECDSA(hashes.SHA256())))


def kid_of_private(pem: bytes, source: str) -> str:
    """The id of a private key, given as PEM; ``source`` names it in errors.

    Raises:
        SigningUnavailable: it is no private key of P-256.
    """
    return ecdsa.kid_of(ecdsa.to_pem(_load(pem, source).public_key()))


def _load(pem: bytes, source: str) -> ec.EllipticCurvePrivateKey:
    try:
        private = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SigningUnavailable(f"the signing key {source} cannot be used: {error}") from error
    if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP256R1):
        raise SigningUnavailable(
            f"the signing key {source} is not on the curve P-256; create one: openssl ecparam -name prime256v1 -genkey "
            f"-noout -out {shlex.quote(source)}"
        )
    return private


def _create(path: Path) -> None:
    """Make a key, unless another process has just made one."""
    with suppress(FileExistsError):
        put_back(path, _new_key())


def put_back(path: Path, pem: bytes) -> None:
    """Write a private key that only its owner can read, complete or not at all.

    Raises:
        FileExistsError: there is one.
    """
    temporary = _write_beside(path, pem)
    try:
        os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def replace_key(path: Path) -> None:
    """Put a new key in place of the one in a file, which is lost then.

    Raises:
        SigningUnavailable: the file cannot be written.
    """
    try:
        _write_beside(path, _new_key()).replace(path)
    except OSError as error:
        raise SigningUnavailable(f"the signing key {path} cannot be replaced: {error}") from error


def _new_key() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write_beside(path: Path, data: bytes) -> Path:
    """A key in a file beside ``path``, synced, which only its owner can read."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return temporary
