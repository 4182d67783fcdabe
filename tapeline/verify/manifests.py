"""The manifest of a signed folder, as OpenSSF Model Signing v1.0 defines it: the SHA-256 of each file, and of all."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tapeline.verify import bundles
from tapeline.verify.bundles import Bundle, CertificateRefused, as_digest, as_line, fields

PREDICATE_TYPE: Final = "https://model_signing/signature/v1.0"
SIGNATURE: Final = "model.sig"
CLAIMS: Final = "claims.jsonl"
IGNORED: Final = (CLAIMS, SIGNATURE)
"""The files of a certificate that its manifest does not list: they were written after it, and sign themselves."""
_CHUNK_BYTES: Final = 1 << 20
_MAX_DEPTH: Final = 100
"""Folders inside of each other; the service makes none."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files that a signature covers.

    Attributes:
        name: of the folder when it was signed; it may be renamed.
        files: the SHA-256 (hex) of each file by its path.
        ignored: paths that the signature does not cover.
    """

    name: str
    files: Mapping[str, str]
    ignored: Sequence[str]

    @property
    def root(self) -> str:
        """The root digest (hex)."""
        return root_digest(self.files)


def root_digest(files: Mapping[str, str]) -> str:
    """The SHA-256 (hex) over the digests of the files, as bytes, in the order of their paths by code points."""
    return bundles.sha256(b"".join(bytes.fromhex(files[path]) for path in sorted(files)))


def statement(name: str, files: Mapping[str, str]) -> bytes:
    """The statement that a signature of these files signs.

    Raises:
        CertificateRefused: there is no file.
    """
    if not files:
        raise CertificateRefused("a folder without files cannot be signed")
    resources = [{"name": path, "algorithm": "sha256", "digest": files[path]} for path in sorted(files)]
    serialization = {
        "method": "files",
        "hash_type": "sha256",
        "allow_symlinks": False,
        "ignore_paths": sorted(IGNORED),
    }
    predicate = {"resources": resources, "serialization": serialization}
    return bundles.statement(PREDICATE_TYPE, predicate, name=name, digest=root_digest(files))


def read(bundle: Bundle) -> Manifest:
    """The manifest of a bundle, whose signature is not verified here.

    Raises:
        CertificateRefused: it is no manifest of whole files by SHA-256 without links, or not consistent.
    """
    where = bundle.where
    if bundle.predicate_type != PREDICATE_TYPE:
        raise CertificateRefused(f"{where}: the predicate type is {bundle.predicate_type!r}, not {PREDICATE_TYPE}")
    name, root = bundle.subject
    fields(bundle.predicate, f"{where}: predicate", {"resources", "serialization"})
    serialization = bundle.predicate["serialization"]
    fields(serialization, f"{where}: serialization", {"method", "hash_type", "allow_symlinks"}, {"ignore_paths"})
    for field, value in (("method", "files"), ("hash_type", "sha256"), ("allow_symlinks", False)):
        if serialization[field] != value or type(serialization[field]) is not type(value):
            raise CertificateRefused(f"{where}: {field} is {serialization[field]!r}; only {value!r} is supported")
    manifest = Manifest(
        name,
        _read_resources(bundle.predicate["resources"], where),
        _read_ignored(serialization.get("ignore_paths", []), where),
    )
    if manifest.root != root:
        raise CertificateRefused(f"{where}: the digests of the files give {manifest.root}, but the subject is {root}")
    return manifest


def _read_resources(resources: Any, where: str) -> dict[str, str]:
    if not isinstance(resources, list) or not resources:
        raise CertificateRefused(f"{where}: resources must be a list of at least one file")
    files: dict[str, str] = {}
    previous: str | None = None
    for resource in resources:
        fields(resource, f"{where}: resource", {"name", "algorithm", "digest"})
        path = _read_path(resource["name"], f"{where}: resource")
        if resource["algorithm"] != "sha256":
            raise CertificateRefused(f"{where}: {path}: the algorithm is {resource['algorithm']!r}, not sha256")
        if path in files:
            raise CertificateRefused(f"{where}: {path} is listed twice")
        if previous is not None and path < previous:
            raise CertificateRefused(f"{where}: resources are not sorted: {path} comes after {previous}")
        files[path] = as_digest(resource["digest"], f"{where}: {path}")
        previous = path
    return files


def _read_ignored(paths: Any, where: str) -> list[str]:
    if not isinstance(paths, list):
        raise CertificateRefused(f"{where}: ignore_paths must be a list")
    return [_read_path(path, f"{where}: ignore_paths") for path in paths]


def _read_path(value: Any, where: str) -> str:
    path = as_line(value, where)
    if path.startswith("/") or "\\" in path or "\0" in path:
        raise CertificateRefused(f"{where}: {path!r} is not a relative path with / between its parts")
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise CertificateRefused(f"{where}: {path!r} is not canonical, or leaves the folder")
    return path


def hash_folder(folder: Path, *, without: Sequence[str] = IGNORED) -> dict[str, str]:
    """The SHA-256 (hex) of each file of a folder by its path.

    Raises:
        CertificateRefused: there is something that is no regular file.
        OSError: one cannot be read.
    """
    return {path: _hash_file(folder / path) for path in _walk(folder) if path not in without}


def _shown(path: str) -> str:
    """A path in a message: a line break in a name must not begin another line."""
    return path if path.isprintable() else ascii(path)


def _walk(folder: Path, prefix: str = "") -> Iterator[str]:
    if prefix.count("/") > _MAX_DEPTH:
        raise CertificateRefused(f"{_shown(prefix[:100])}… has too many folders inside of each other")
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = f"{prefix}{entry.name}"
        mode = entry.stat(follow_symlinks=False).st_mode
        if stat.S_ISLNK(mode):
            raise CertificateRefused(f"{_shown(path)} is a symbolic link; a certificate has only files")
        if stat.S_ISDIR(mode):
            yield from _walk(Path(entry.path), f"{path}/")
        elif stat.S_ISREG(mode):
            yield path
        else:
            raise CertificateRefused(f"{_shown(path)} is neither a file nor a folder")


def _hash_file(path: Path) -> str:
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            hasher.update(chunk)
    return hasher.hexdigest()


def compare(manifest: Manifest, found: Mapping[str, str]) -> None:
    """Compare the files of a folder with the manifest.

    Raises:
        CertificateRefused: it names each file that is missing, is too much, or differs.
    """
    faults = [f"{path} is missing" for path in sorted(manifest.files.keys() - found.keys())]
    faults += [f"{_shown(path)} is not in the signed list" for path in sorted(found.keys() - manifest.files.keys())]
    faults += [
        f"{path} was changed: its SHA-256 is {found[path]}, the signed one is {digest}"
        for path, digest in sorted(manifest.files.items())
        if found.get(path, digest) != digest
    ]
    if faults:
        raise CertificateRefused("; ".join(faults[:10]))
