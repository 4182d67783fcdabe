"""What is claimed of a signed folder: how it was trained (SLSA Provenance v1), and that it was trained again (in-toto
Simple Verification Result v0.2). docs/certificates.md describes each field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from tapeline.verify import bundles
from tapeline.verify.bundles import Bundle, CertificateRefused, as_digest, as_line, as_object, as_text

PROVENANCE_TYPE: Final = "https://slsa.dev/provenance/v1"
RESULT_TYPE: Final = "https://in-toto.io/attestation/svr/v0.2"
BUILD_TYPE: Final = "https://tapeline.example/training/v1"
"""Names the section "Build type" of docs/certificates.md. The host is one that is reserved: nothing is fetched."""
PUBLIC_KEY: Final = "tapeline_publicKey"
"""An extension of both predicates: the signer's public key, which shows that a statement is whole, not who signed."""
SIGNED_ON: Final = "tapeline_signedOn"
REBUILT: Final = "TAPELINE_BITWISE_REBUILT"
CHECKPOINT_FILE: Final = "checkpoint.safetensors"
START_FILE: Final = "start.safetensors"
"""The checkpoint that a fork began with."""


def spot_checked(count: int, total: int) -> str:
    """The property of a result for which some epochs were trained again."""
    return f"TAPELINE_BITWISE_REBUILT_EPOCHS_{count}_OF_{total}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """How a checkpoint was trained.

    Attributes:
        spec: the resolved spec, without the fields that do not decide bits.
        environment: what else decides bits; equal environments and specs give equal bits.
        code: the digest of the code that decides bits, as the service states it.
        dataset: its name, SHA-256 and others, as ``annotations`` have them.
        epochs: the digest (hex) of each epoch by its number.
        checkpoints: the SHA-256 (hex) of each checkpoint file that the service had, by epoch.
        checkpoint: the epoch of the certified one.
        start: of a fork, ``job``, ``epoch`` and ``sha256`` of the checkpoint that it began with.
        result: the digest of the whole result, as ``result_digest`` of the job.
    """

    job: str
    spec: Mapping[str, Any]
    spec_hash: str
    environment: Mapping[str, Any]
    code: str
    dataset: Mapping[str, Any]
    epochs: Mapping[int, str]
    checkpoints: Mapping[int, str]
    checkpoint: int
    start: Mapping[str, Any] | None
    result: str
    public_key: str
    signed_at: datetime

    @property
    def first(self) -> int:
        """The first epoch that was trained: a fork begins after that of its first checkpoint."""
        return 1 if self.start is None else int(self.start["epoch"]) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuild:
    """A claim that the training was repeated, with the same bits."""

    kid: str
    verifier: str
    created_at: datetime
    properties: Sequence[str]
    public_key: str


def read_provenance(bundle: Bundle) -> Provenance:
    """The provenance in a bundle, whose signature is not verified here.

    Raises:
        CertificateRefused: it is none, or lacks something.
    """
    where = bundle.where
    if bundle.predicate_type != PROVENANCE_TYPE:
        raise CertificateRefused(f"{where}: the predicate type is {bundle.predicate_type!r}, not {PROVENANCE_TYPE}")
    definition = _member(bundle.predicate, "buildDefinition", where)
    if definition.get("buildType") != BUILD_TYPE:
        raise CertificateRefused(f"{where}: the build type is {definition.get('buildType')!r}, not {BUILD_TYPE}")
    external = _member(definition, "externalParameters", where)
    details = _member(bundle.predicate, "runDetails", where)
    metadata = _member(details, "metadata", where)
    dependencies = _by_name(definition.get("resolvedDependencies"), f"{where}: resolvedDependencies")
    products = _by_name(details.get("byproducts"), f"{where}: byproducts")
    start = dependencies.get("start")
    try:
        data = as_object(dependencies["dataset"].get("annotations"), f"{where}: annotations of dataset")
        known = Provenance(
            job=as_line(metadata.get("invocationId"), f"{where}: invocationId"),
            spec=_member(external, "spec", where),
            spec_hash=as_text(external.get("spec_hash"), f"{where}: spec_hash"),
            environment=_member(_member(definition, "internalParameters", where), "environment", where),
            code=f"sha256:{_digest(dependencies['code'], where)}",
            dataset={**data, "name": as_line(data.get("name"), f"{where}: name of the dataset")}
            | {"sha256": _digest(dependencies["dataset"], where)},
            epochs=_numbered(products, "epoch", where),
            checkpoints=_numbered(products, "checkpoint", where),
            checkpoint=int(_member(external, "checkpoint", where)["epoch"]),
            start=None if start is None else {**start["annotations"], "sha256": _digest(start, where)},
            result=_digest(products["result"], where),
            public_key=as_text(_member(details, "builder", where).get(PUBLIC_KEY), f"{where}: {PUBLIC_KEY}"),
            signed_at=read_time(metadata.get(SIGNED_ON), f"{where}: {SIGNED_ON}"),
        )
        absent = next((epoch for epoch in range(known.first, known.checkpoint + 1) if epoch not in known.epochs), None)
        if absent is not None or not known.epochs:
            raise CertificateRefused(f"{where}: the provenance has no digest of epoch {absent or known.first}")
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, CertificateRefused):
            raise
        raise CertificateRefused(f"{where}: the provenance is not complete: {error!r}") from error
    return known


def read_rebuild(bundle: Bundle) -> Rebuild:
    """The result of a rebuild in a bundle, whose signature is not verified here.

    Raises:
        CertificateRefused: it is another statement, or lacks something.
    """
    where = bundle.where
    if bundle.predicate_type != RESULT_TYPE:
        raise CertificateRefused(f"{where}: the predicate type is {bundle.predicate_type!r}, not {RESULT_TYPE}")
    verifier = _member(bundle.predicate, "verifier", where)
    properties = bundle.predicate.get("properties")
    if not isinstance(properties, list):
        raise CertificateRefused(f"{where}: properties must be a list of texts")
    return Rebuild(
        kid=bundle.kid,
        verifier=as_line(verifier.get("id"), f"{where}: verifier id"),
        created_at=read_time(bundle.predicate.get("timeCreated"), f"{where}: timeCreated"),
        properties=[as_line(name, f"{where}: property") for name in properties],
        public_key=as_text(verifier.get(PUBLIC_KEY), f"{where}: {PUBLIC_KEY}"),
    )


def rebuild_statement(
    *, name: str, root: str, properties: Sequence[str], verifier: str, public_key: str, now: datetime
) -> bytes:
    """The statement that a folder was trained again, with the same bits.

    Args:
        root: the root digest (hex) of the folder.
        verifier: a URI of who did it.
    """
    predicate = {
        "verifier": {"id": verifier, PUBLIC_KEY: public_key},
        "timeCreated": time_text(now),
        "properties": list(properties),
    }
    return bundles.statement(RESULT_TYPE, predicate, name=name, digest=root)


def time_text(moment: datetime) -> str:
    """A time as in all statements: UTC, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_time(value: Any, where: str) -> datetime:
    """A time of a statement.

    Raises:
        CertificateRefused: it is none, or has no time zone.
    """
    try:
        moment = datetime.fromisoformat(as_text(value, where))
    except ValueError as error:
        raise CertificateRefused(f"{where} is not a time: {value!r}") from error
    if moment.tzinfo is None:
        raise CertificateRefused(f"{where} has no time zone: {value!r}")
    return moment


def _member(document: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    return as_object(document.get(name), f"{where}: {name}")


def _by_name(resources: Any, where: str) -> dict[str, Mapping[str, Any]]:
    """Resource descriptors by name."""
    if not isinstance(resources, list):
        raise CertificateRefused(f"{where} must be a list")
    named: dict[str, Mapping[str, Any]] = {}
    for resource in resources:
        name = as_line(as_object(resource, where).get("name"), f"{where}: name")
        if name in named:
            raise CertificateRefused(f"{where}: {name} appears twice")
        named[name] = resource
    return named


def _digest(resource: Mapping[str, Any], where: str) -> str:
    return as_digest(_member(resource, "digest", where).get("sha256"), f"{where}: digest of {resource.get('name')}")


def _numbered(resources: Mapping[str, Mapping[str, Any]], prefix: str, where: str) -> dict[int, str]:
    """The digests of ``epoch/1``, ``epoch/2`` and so on, by number."""
    found = {
        int(name.partition("/")[2]): _digest(resource, where)
        for name, resource in resources.items()
        if name.startswith(f"{prefix}/")
    }
    return dict(sorted(found.items()))
