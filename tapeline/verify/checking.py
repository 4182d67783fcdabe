"""The verification of a certificate, offline: its files, its signatures, and that all of it belongs together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tapeline.verify import bundles, claims, ecdsa, manifests
from tapeline.verify.bundles import Bundle, CertificateRefused
from tapeline.verify.claims import Provenance, Rebuild
from tapeline.verify.manifests import CLAIMS, SIGNATURE, Manifest
from tapeline.verify.trusted_keys import TrustedKey, describe

_MAX_BYTES: Final = 1 << 26
_MAX_HEADER_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A certificate that was verified.

    Attributes:
        is_trusted: whether the reader trusts its key. If not, it is whole, but anybody may have signed it.
        remarks: about keys that are retired now.
        rebuilds: who repeated the training, each with whether the reader trusts the key.
    """

    folder: Path
    manifest: Manifest
    kid: str
    is_trusted: bool
    provenance: Provenance
    rebuilds: Sequence[tuple[Rebuild, bool]]
    remarks: Sequence[str]

    def document(self) -> dict[str, Any]:
        """It as JSON."""
        return {
            "status": "verified",
            "key": self.kid,
            "trusted": self.is_trusted,
            "root": self.manifest.root,
            "job": self.provenance.job,
            "checkpoint": self.provenance.checkpoint,
            "epochs": len(self.provenance.epochs),
            "spec_hash": self.provenance.spec_hash,
            "dataset": dict(self.provenance.dataset),
            "environment": dict(self.provenance.environment),
            "result_digest": f"sha256:{self.provenance.result}",
            "signed_at": claims.time_text(self.provenance.signed_at),
            "rebuilds": [
                {
                    "key": rebuild.kid,
                    "trusted": trusted,
                    "verifier": rebuild.verifier,
                    "created_at": claims.time_text(rebuild.created_at),
                    "properties": list(rebuild.properties),
                }
                for rebuild, trusted in self.rebuilds
            ],
            "remarks": list(self.remarks),
        }

    def lines(self) -> list[str]:
        """It as text."""
        known = self.provenance
        data = f"{known.dataset.get('name', 'a dataset')} (sha256 {known.dataset['sha256'][:12]}…)"
        lines = [
            f"verified  {len(self.manifest.files)} of {len(self.manifest.files)} files, root {self.manifest.root}",
            f"job       {known.job}, checkpoint of epoch {known.checkpoint} of {max(known.epochs)}, on {data}",
            f"signed    {claims.time_text(known.signed_at)} by the key {self.kid}",
        ]
        if not self.is_trusted:
            lines.append(
                "          No trusted key was given, so anybody may have signed this. Compare the id with the one that "
                "the signer publishes, or give --keys or --public-key."
            )
        for rebuild, trusted in self.rebuilds:
            what = ", ".join(rebuild.properties)
            by = f"{rebuild.verifier}, key {rebuild.kid}{'' if trusted else ' (not among the trusted keys)'}"
            lines.append(f"rebuilt   {claims.time_text(rebuild.created_at)} by {by}: {what}")
        return [*lines, *(f"note      {remark}" for remark in self.remarks)]


def verify(folder: Path, trusted: Mapping[str, TrustedKey] | None = None) -> Certificate:
    """Verify a certificate.

    Args:
        trusted: the keys by which it may be signed; ``None``: any.

    Raises:
        CertificateRefused: it is not what its signer signed, or by none of these keys.
        OSError: a file cannot be read.
    """
    if not folder.is_dir():
        raise CertificateRefused(f"{folder} is not a folder")
    data = _read(folder, SIGNATURE)
    signature = bundles.read(data.removesuffix(b"\n"), SIGNATURE)
    manifest = manifests.read(signature)
    if set(manifest.ignored) != set(manifests.IGNORED):
        raise CertificateRefused(
            f"{SIGNATURE} leaves out {describe(sorted(manifest.ignored))}, not {describe(sorted(manifests.IGNORED))}"
        )
    manifests.compare(manifest, manifests.hash_folder(folder))
    first, second, *rest = _read_claims(folder, data)
    provenance = claims.read_provenance(second)
    if second.kid != signature.kid:
        raise CertificateRefused(
            f"{second.where} is signed by the key {second.kid}, but {SIGNATURE} by {signature.kid}"
        )
    rebuilds = [claims.read_rebuild(bundle) for bundle in rest]
    for bundle in (second, *rest):
        if bundle.subject[1] != manifest.root:
            text = f"it is about the folder {bundle.subject[1]}, and this one is {manifest.root}"
            raise CertificateRefused(f"{bundle.where} belongs to another certificate: {text}")
    if trusted is not None and signature.kid not in trusted:
        raise CertificateRefused(
            f"it is signed by the key {signature.kid}, which is not trusted; trusted keys: {describe(sorted(trusted))}"
        )
    key = (trusted or {}).get(signature.kid)
    for bundle in (signature, first, second):
        ecdsa.verify(bundle, provenance.public_key if key is None else key.pem)
    remarks = [key.check(provenance.signed_at, "the certificate")] if key is not None else []
    for bundle, rebuild in zip(rest, rebuilds, strict=True):
        known = (trusted or {}).get(rebuild.kid)
        ecdsa.verify(bundle, rebuild.public_key if known is None else known.pem)
        remarks += [known.check(rebuild.created_at, bundle.where)] if known is not None else []
    _check_checkpoint(folder, manifest, provenance)
    return Certificate(
        folder=folder,
        manifest=manifest,
        kid=signature.kid,
        is_trusted=key is not None,
        provenance=provenance,
        rebuilds=[(rebuild, rebuild.kid in (trusted or {})) for rebuild in rebuilds],
        remarks=[remark for remark in remarks if remark is not None],
    )


def _read(folder: Path, name: str) -> bytes:
    path = folder / name
    if path.is_symlink() or not path.is_file():
        raise CertificateRefused(f"{folder} has no {name}: it is not a certificate")
    with path.open("rb") as file:
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES or not data.endswith(b"\n") or data.startswith(b"\n"):
        raise CertificateRefused(f"{name} is incomplete: it must end with a line break, and have at most 64 MB")
    return data


def _read_claims(folder: Path, signature: bytes) -> list[Bundle]:
    lines = _read(folder, CLAIMS).removesuffix(b"\n").split(b"\n")
    if lines[0] + b"\n" != signature:
        raise CertificateRefused(f"{CLAIMS}: line 1 is not the content of {SIGNATURE}")
    if len(lines) < 2:
        raise CertificateRefused(f"{CLAIMS} has no provenance in line 2")
    return [bundles.read(line, f"{CLAIMS}: line {number}") for number, line in enumerate(lines, 1)]


def read_header(path: Path) -> dict[str, Any]:
    """The header of a checkpoint, a safetensors file.

    Raises:
        CertificateRefused: it is none.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        data = file.read(length) if length <= _MAX_HEADER_BYTES else b""
    if len(data) != length or not data:
        raise CertificateRefused(f"{path.name} is not a checkpoint: its header is incomplete")
    header = bundles.as_object(bundles.parse(data.rstrip(b" "), path.name), path.name)
    bundles.as_object(header.get("__metadata__"), f"{path.name}: metadata")
    return dict(header)


def spec_hash(spec: Mapping[str, Any]) -> str:
    """The hash of a resolved spec without the fields that do not decide bits, as the service computes it."""
    return "sha256:" + bundles.sha256(bundles.canonical(spec).encode())


def _check_checkpoint(folder: Path, manifest: Manifest, provenance: Provenance) -> None:
    """Check that the provenance is that of the checkpoint, which contains its own spec and epoch."""
    if claims.CHECKPOINT_FILE not in manifest.files:
        raise CertificateRefused(f"there is no {claims.CHECKPOINT_FILE} among the signed files")
    if spec_hash(provenance.spec) != provenance.spec_hash:
        raise CertificateRefused("spec_hash in the provenance is not that of its spec")
    certified = provenance.checkpoints.get(provenance.checkpoint)
    if certified != manifest.files[claims.CHECKPOINT_FILE]:
        raise CertificateRefused(
            f"{claims.CHECKPOINT_FILE} is not the checkpoint of epoch {provenance.checkpoint} in the provenance"
        )
    if provenance.start is not None and provenance.start["sha256"] != manifest.files.get(claims.START_FILE):
        raise CertificateRefused(f"{claims.START_FILE} is not the checkpoint that the fork began with")
    metadata = read_header(folder / claims.CHECKPOINT_FILE)["__metadata__"]
    try:
        spec, state = json.loads(metadata["spec"]), json.loads(metadata["state"])
        same = {name: spec[name] for name in provenance.spec} == provenance.spec
    except (KeyError, TypeError, ValueError) as error:
        raise CertificateRefused(f"{claims.CHECKPOINT_FILE} has no spec or epoch in its metadata: {error!r}") from error
    if not same or state.get("epoch") != provenance.checkpoint:
        raise CertificateRefused(f"{claims.CHECKPOINT_FILE} is of another training or epoch than the provenance says")
