"""The key that signs certificates, in a backup on request: it is a file of the web process, and no row has it."""

from __future__ import annotations

from pathlib import Path

from service.errors import SigningUnavailable
from service.maintenance.backups.backup_format import BackupError
from service.models.certificates import signing, signing_keys
from service.runtime.files.durable_files import fsync_folder
from service.runtime.settings import Settings
from service.storage.database import Database


def read(settings: Settings, database: Database) -> str | None:
    """The private key as PEM; ``None``: this service has made none yet.

    Raises:
        BackupError: it cannot be read here, although the service signs.
    """
    path = settings.signing_key_file
    if settings.signing_command:
        raise BackupError(
            "with TAPELINE_SIGNING_COMMAND, the signing key is elsewhere: back it up there, without --with-signing-key"
        )
    if not path.exists():
        with database.read() as session:
            published = [row.kid for row in signing_keys.all_of(session) if row.retired_ms is None]
        if published:
            raise BackupError(
                f"the service signs with the key {published[0]}, but there is no {path}: run the command where the web "
                "process runs, or retire the key if it is lost (tapeline signing-keys retire)"
            )
        return None
    try:
        pem = path.read_bytes()
    except OSError as error:
        raise BackupError(f"the signing key {path} cannot be read: {error.strerror}") from error
    kid_of(pem, str(path))
    return pem.decode("ascii")


def kid_of(pem: bytes, source: str) -> str:
    """The id of a private key.

    Raises:
        BackupError: it is none.
    """
    try:
        return signing.kid_of_private(pem, source)
    except SigningUnavailable as error:
        raise BackupError(str(error)) from error


def check_place(path: Path, pem: str) -> None:
    """Check that the key can be put into this file: another one is never overwritten.

    Raises:
        BackupError: another key is there.
    """
    if not path.exists():
        return
    there, restored = kid_of(path.read_bytes(), str(path)), kid_of(pem.encode(), "the key in the backup")
    if there != restored:
        raise BackupError(
            f"{path} has another signing key ({there}) than the backup ({restored}): move it away, and restore again"
        )


def put_back(path: Path, pem: str) -> bool:
    """Write the key, readable by its owner only; whether it was not there before.

    Raises:
        BackupError: it cannot be written, or another key is there.
    """
    check_place(path, pem)
    if path.exists():
        return False
    try:
        signing.put_back(path, pem.encode())
        fsync_folder(path.parent)
    except OSError as error:
        raise BackupError(f"the signing key cannot be written to {path}: {error.strerror}") from error
    return True
