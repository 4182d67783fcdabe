"""Signatures by ECDSA on P-256 with SHA-256, the only ones of certificates. Needs the package cryptography."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tapeline.verify import bundles
from tapeline.verify.bundles import Bundle, CertificateRefused


def load_public_key(pem: str, where: str) -> ec.EllipticCurvePublicKey:
    """A public key.

    Raises:
        CertificateRefused: it is no PEM file of a P-256 key.
    """
    try:
        key = serialization.load_pem_public_key(pem.encode())
    except (ValueError, TypeError) as error:
        raise CertificateRefused(f"{where} is not a public key in PEM: {error}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise CertificateRefused(f"{where} is not a key on the curve P-256")
    return key


def to_pem(key: ec.EllipticCurvePublicKey) -> str:
    """The PEM text of a public key, of which ``kid_of`` takes the digest."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


def kid_of(pem: str, where: str = "the key") -> str:
    """The id of a key: the SHA-256 (hex) of its public PEM, which OpenSSF Model Signing calls hint."""
    return bundles.sha256(to_pem(load_public_key(pem, where)).encode())


def verify(bundle: Bundle, pem: str) -> None:
    """Verify the signature of a bundle.

    Raises:
        CertificateRefused: this key did not sign it.
    """
    key = load_public_key(pem, f"the key of {bundle.where}")
    if bundles.sha256(to_pem(key).encode()) != bundle.kid:
        raise CertificateRefused(f"{bundle.where}: it was signed by the key {bundle.kid}, not by this one")
    try:
        key.verify(bundle.signature, bundles.pae(bundle.payload), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise CertificateRefused(
            f"{bundle.where}: the signature is not valid: the statement or the signature was changed"
        ) from error
