"""``tapeline certify``, ``verify`` and ``signing-keys``."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click
from rich.table import Column

from service.cli import rebuilding
from service.cli.commands.access import open_database, operator
from service.cli.rebuilding import NotRebuildable, Outcome
from service.cli.target import Failure, Target, checkpoint_option, job_argument, with_target
from service.cli.text import print_table
from service.errors import SigningUnavailable
from service.models.certificates import signing, signing_keys
from service.runtime.settings import Settings
from tapeline.downloads import complete_file
from tapeline.errors import ClientError
from tapeline.method_types import Which
from tapeline.verify import checking, claims, trusted_keys
from tapeline.verify.bundles import CertificateRefused
from tapeline.verify.checking import Certificate
from tapeline.verify.manifests import CLAIMS

_CODES: Final = {"rebuilt": 0, "mismatch": 1, "environment_differs": 3}
"""Exit codes; 2: it cannot be checked."""


class Unusable(Failure):
    """The certificate, or its training, cannot be checked."""

    exit_code = 2


@click.command()
@job_argument
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@checkpoint_option("best")
@with_target
def certify(target: Target, job_text: str, folder: Path, checkpoint: Which) -> None:
    """Download the certificate of a succeeded job to DIR, a new folder.

    It has the checkpoint, its signature (OpenSSF Model Signing v1.0) and its provenance (SLSA): spec, environment, and
    the digests of data, code and each epoch. The service signs it. Verify it with: tapeline verify DIR
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Failure(f"{folder} exists already; name a new folder")
    with target.job(job_text) as job:
        job.certificate(folder, checkpoint=checkpoint)
    certificate = _verify(target, folder, None)
    text = f"{folder}  checkpoint of epoch {certificate.provenance.checkpoint}, signed by the key {certificate.kid}"
    target.echo({"path": str(folder), **certificate.document()}, text)


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--keys", "keys", metavar="URL|FILE", help="Trusted keys: of a service, or its tapeline-keys.json.")
@click.option("--public-key", metavar="FILE", help="The trusted key, a PEM file.")
@click.option("--rebuild", is_flag=True, help="Train again on the service of --server, and compare each epoch.")
@click.option("--epochs", metavar="N,N", help="With --rebuild: only these epochs, each from the checkpoint before it.")
@click.option("--as", "verifier", metavar="URI", help="With --rebuild: who you are, for the claim (default: --server).")
@with_target
@click.pass_context
def verify(
    context: click.Context,
    target: Target,
    folder: Path,
    keys: str | None,
    public_key: str | None,
    rebuild: bool,
    epochs: str | None,
    verifier: str | None,
) -> None:
    """Verify a certificate in DIR: files, signatures, and that they belong together. Needs no service.

    With --rebuild, train again and name the first epoch that differs. If all bits are equal, the claim of that is added
    to claims.jsonl in DIR, signed with your signing key (TAPELINE_SIGNING_KEY).

    Exit code 0: verified, or rebuilt; 1: mismatch; 2: it cannot be checked; 3: environment_differs: the bits
    differ, and so does what determines them.
    """
    if keys is not None and public_key is not None:
        raise click.UsageError("give either --keys or --public-key")
    if not rebuild and (epochs is not None or verifier is not None):
        raise click.UsageError("--epochs and --as need --rebuild")
    numbers = _epochs(epochs) if epochs is not None else None
    certificate = _verify(target, folder, keys or public_key)
    if not rebuild:
        target.echo(certificate.document(), "\n".join(certificate.lines()))
        return
    if not target.as_json:
        click.echo("\n".join(certificate.lines()))
    signer = _signer()  # first: a training may take hours
    outcome = _rebuild(target, certificate, numbers)
    document = {**certificate.document(), **outcome.document()}
    if outcome.status == "rebuilt":
        document["claim"] = _add_claim(
            target, certificate, outcome, signer, verifier, is_spot_check=numbers is not None
        )
    target.echo(document, "\n".join(_lines(outcome)))
    context.exit(_CODES[outcome.status])


def _verify(target: Target, folder: Path, source: str | None) -> Certificate:
    try:
        trusted = None if source is None else trusted_keys.load(source)
        return checking.verify(folder, trusted)
    except CertificateRefused as error:
        raise Failure(f"mismatch: {error}", {"status": "mismatch", "detail": str(error)}) from error
    except (trusted_keys.KeysUnavailable, OSError) as error:
        raise Unusable(str(error)) from error


def _rebuild(target: Target, certificate: Certificate, epochs: Sequence[int] | None) -> Outcome:
    def report(line: str) -> None:
        if not target.as_json:
            click.echo(line, err=True)

    with target.client() as client:
        try:
            if epochs is not None:
                return rebuilding.spot_check(client, certificate, epochs, report=report)
            return rebuilding.rebuild(client, certificate, report=report)
        except (NotRebuildable, ClientError) as error:
            raise Unusable(str(error)) from error


def _epochs(text: str) -> list[int]:
    numbers = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and 0 < int(part) < 10**9 for part in numbers):
        raise click.UsageError(f"--epochs expects numbers of epochs, such as 7,19; got {text!r}")
    return sorted({int(part) for part in numbers})


def _signer() -> signing.Signer:
    try:
        return signing.open_signer(Settings.from_env(os.environ, cores=1))
    except SigningUnavailable as error:
        raise Unusable(str(error)) from error


def _add_claim(
    target: Target,
    certificate: Certificate,
    outcome: Outcome,
    signer: signing.Signer,
    verifier: str | None,
    *,
    is_spot_check: bool,
) -> dict[str, object]:
    """Add the signed claim of a rebuild to the certificate, whole or not at all."""
    with target.client() as client:
        verifier = verifier or client.server
    properties = rebuilding.properties_of(outcome, certificate, is_spot_check=is_spot_check)
    statement = claims.rebuild_statement(
        name=certificate.manifest.name,
        root=certificate.manifest.root,
        properties=properties,
        verifier=verifier,
        public_key=signer.public_key,
        now=datetime.now(UTC),
    )
    path = certificate.folder / CLAIMS
    data = path.read_bytes() + signer.sign(statement) + b"\n"
    with complete_file(path) as file:
        file.write(data)
    return {"key": signer.kid, "verifier": verifier, "properties": properties}


def _lines(outcome: Outcome) -> list[str]:
    lines = [f"{outcome.status}: {outcome.sentence}"]
    if outcome.status == "rebuilt":
        pins = "; ".join(f"{name} is {b!r}, not {a!r}" for name, (a, b) in outcome.environment.items())
        lines += [f"in another environment: {pins}"] if pins else []
        lines.append(f"the claim was added to {CLAIMS}, signed with your key")
    return lines + ([outcome.hint] if outcome.hint is not None else [])


@click.group("signing-keys")
def signing_keys_group() -> None:
    """List, replace or retire the keys that sign certificates. Run it on the machine that hosts the service, with
    the same environment."""


_json_option: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@signing_keys_group.command("list")
@_json_option
def show_list(as_json: bool) -> None:
    """List all keys, retired ones included. All of them are published."""
    with open_database() as database, database.read() as session:
        documents = [signing_keys.document(row) for row in signing_keys.all_of(session)]
    if as_json:
        click.echo(json.dumps(documents))
        return
    columns = [Column(title, overflow="fold") for title in ("KEY", "SINCE", "RETIRED")]
    print_table(columns, [(item["kid"], item["not_before"], item["retired_at"] or "") for item in documents])


@signing_keys_group.command("show")
@click.argument("key", metavar="KEY")
def show_one(key: str) -> None:
    """Print the public key with this id, or the beginning of it, as PEM."""
    with open_database() as database, database.read() as session:
        click.echo(signing_keys.find(session, key).public_key, nl=False)


@signing_keys_group.command()
@_json_option
def rotate(as_json: bool) -> None:
    """Make a new key and retire the one in use, whose private part is deleted.

    Certificates signed before stay valid: the old public key stays published. With TAPELINE_SIGNING_COMMAND, give the
    command another key, put its public part into TAPELINE_SIGNING_KEY, and retire the old one.
    """
    settings = Settings.from_env(os.environ, cores=1)
    if settings.signing_command:
        raise Failure("TAPELINE_SIGNING_COMMAND has the key: replace it there, then: tapeline signing-keys retire KEY")
    with open_database() as database:
        old = signing.open_signer(settings) if settings.signing_key_file.exists() else None
        if old is not None:  # first: if the command ends here, no certificate is signed until it is repeated
            signing_keys.register_retired(database, old, by=operator())
        signing.replace_key(settings.signing_key_file)
        new = signing.open_signer(settings)
        signing_keys.register(database, new, by=operator())
    document = {"kid": new.kid, "retired": None if old is None else old.kid}
    text = f"new key {new.kid}" + ("" if old is None else f"; retired {old.kid}")
    click.echo(json.dumps(document) if as_json else text)


@signing_keys_group.command()
@click.argument("key", metavar="KEY")
@click.option("--at", "moment", metavar="TIME", help="When it is retired, such as 2026-11-01T00:00Z (default: now).")
@_json_option
def retire(key: str, moment: str | None, as_json: bool) -> None:
    """Retire the key with this id, or the beginning of it.

    Signatures that claim a later time than --at are not valid any more. A thief of the key can claim an earlier time:
    tell the readers of its certificates.
    """
    at_ms = None
    if moment is not None:
        try:
            at_ms = int(claims.read_time(moment, "--at").timestamp() * 1000)
        except CertificateRefused as error:
            raise click.UsageError(f"{error}; write it as 2026-11-01T00:00Z") from error
    with open_database() as database:
        with database.read() as session:
            kid = signing_keys.find(session, key).kid
        document = signing_keys.document(signing_keys.retire(database, kid, at_ms=at_ms, by=operator()))
    click.echo(json.dumps(document) if as_json else f"retired {document['kid']} from {document['retired_at']} on")
