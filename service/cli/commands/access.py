"""``tapeline keys`` and ``tapeline audit``: for operators. They access the database directly, without the service."""

from __future__ import annotations

import getpass
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import urlsplit

import click
from rich.table import Column
from sqlalchemy import make_url, select

from migrations.upgrade import is_current, upgrade
from service.access import adoption, audit_file, audit_seals, invitations, owners, sign_in_links
from service.access import audit as audit_log
from service.access import keys as api_keys
from service.access.audit import ACTIONS, Actor, AuditAction
from service.access.audit_chain import Verification
from service.access.audit_chain import verify as verify_chain
from service.access.invitations import Invitation
from service.access.keys import Scope
from service.cli import sign_in_sheet
from service.cli.target import Failure, parse_duration_s
from service.cli.text import print_table, visible
from service.errors import OwnerNotFound
from service.runtime.settings import Settings, is_loopback
from service.storage.database import Database, now_ms
from service.storage.tables import ApiKey, AuditEntry
from service.wording import counted
from tapeline.addresses import local_server
from tapeline.downloads import complete_file

_MAX_LIST_BYTES: Final = 2_000_000
_LINK_DAYS: Final = sign_in_links.LIFETIME_S // (24 * 60 * 60)
_SHOWN_ONCE: Final = "The key is shown only once: store it now, in a safe place."
_sheet_option: Final = click.option(
    "--sheet",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path, allow_dash=True),
    help="Write a page to print: a card with a QR code for each person (-: standard output, without the list).",
)
_url_option: Final = click.option("--url", metavar="URL", help="Address of the service in the links, as users open it.")


@click.group()
def keys() -> None:
    """Manage API keys. Run it on the machine that hosts the service, with the same environment."""


@keys.command()
@click.argument("name", required=False)
@click.option("--from", "names", metavar="FILE", type=click.File("rb"), help="A list of people: one name on each line.")
@click.option("--owner", help="Owner of the jobs that the key gives access to (default: NAME).")
@click.option(
    "--scope",
    type=click.Choice([scope.value for scope in Scope]),
    default=Scope.SUBMIT.value,
    show_default=True,
    help="read: view jobs; submit: also create and change jobs; admin: also manage keys and read the audit log.",
)
@click.option("--expires", metavar="TIME", help="Lifetime, for example 90d, 12h or 30m (default: unlimited).")
@_url_option
@_sheet_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def create(
    name: str | None,
    names: IO[bytes] | None,
    owner: str | None,
    scope: str,
    expires: str | None,
    url: str | None,
    sheet: Path | None,
    as_json: bool,
) -> None:
    """Create a key and print it, or invite the people of a list.

    A key is shown only once. With --from, each person becomes an owner, and gets a link in place of a key: opened once,
    within 14 days, it signs a browser in. Names may be in any script.
    """
    lifetime_s = None if expires is None else parse_duration_s("--expires", expires)
    if name is not None and names is None:
        if url is not None or sheet is not None:
            raise click.UsageError("--url and --sheet go with --from")
        _create_one(name, owner, Scope(scope), lifetime_s, as_json=as_json)
    elif name is None and names is not None:
        if owner is not None:
            raise click.UsageError("--owner goes with NAME: with --from, each person is an owner")
        people = invitations.read_names(_utf8(names))
        with open_database() as database:
            invited = invitations.create(database, people, scope=Scope(scope), lifetime_s=lifetime_s, by=operator())
        _print_links(invited, url, sheet, as_json=as_json)
    else:
        raise click.UsageError("give either NAME, for one key, or --from FILE, for a list of people")


def _create_one(name: str, owner_text: str | None, scope: Scope, lifetime_s: float | None, *, as_json: bool) -> None:
    with open_database() as database:
        owner = name if owner_text is None else _named_owner(database, owner_text)
        if not api_keys.OWNER.fullmatch(owner):
            argument = "--owner" if owner_text is not None else "NAME (the default of --owner)"
            raise click.UsageError(
                f"{argument} must be up to 64 ASCII letters, digits and ._@-, with a letter or digit first"
            )
        row, key = api_keys.create(
            database, name=name[:100], owner=owner, scope=scope, lifetime_s=lifetime_s, by=operator()
        )
        with database.read() as session:
            unowned = adoption.count(session)
    facts = f"Name {row.name}, owner {row.owner}, scope {row.scope}, expires {time_text(row.expires_ms) or 'never'}."
    _print(_document(row, row.created_ms) | {"key": key}, key, as_json=as_json, note=f"{_SHOWN_ONCE} {facts}")
    if unowned and not as_json:
        click.echo(
            f"\nStill without an owner: {unowned}. They are hidden while keys are required. "
            f"`tapeline keys adopt {owner}` gives them to {owner}.",
            err=True,
        )


def _named_owner(database: Database, text: str) -> str:
    """The id of an owner, given its id or its display name; one that is not known may be new."""
    with database.read() as session:
        try:
            return owners.find(session, text)
        except OwnerNotFound as error:
            if error.several or (error.similar and not api_keys.OWNER.fullmatch(text)):
                raise
            return text


@keys.command()
@click.argument("owner")
@_url_option
@_sheet_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def link(owner: str, url: str | None, sheet: Path | None, as_json: bool) -> None:
    """Print a new sign-in link of an owner, for one that was lost.

    It signs a browser in once, with the newest valid key of OWNER, or, if none is valid, with a new one like the last.
    Links of OWNER that were not used become invalid.
    """
    with open_database() as database:
        invited = invitations.new_link(database, owner, by=operator())
    _print_links([invited], url, sheet, as_json=as_json)
    if invited.new_key is not None and not as_json:
        click.echo(f"No key of {invited.owner} was valid: {invited.new_key} is new.", err=True)


def _print_links(invited: Sequence[Invitation], url: str | None, sheet: Path | None, *, as_json: bool) -> None:
    """Print sign-in links, and write the sheet."""
    server = url or local_server()
    links = [(item.name, item.owner, f"{server.rstrip('/')}/ui/welcome/{item.token}") for item in invited]
    until = datetime.now(UTC) + timedelta(seconds=sign_in_links.LIFETIME_S)
    page = sign_in_sheet.sheet([(name, link) for name, _, link in links], until=f"{until:%-d %B %Y}")
    if sheet == Path("-"):
        click.echo(page)
    elif as_json:
        click.echo(json.dumps([dict(zip(("name", "owner", "link"), item, strict=True)) for item in links]))
    elif not sys.stdout.isatty():
        print_table([Column(title) for title in ("NAME", "OWNER", "LINK")], links)
    else:  # whole lines: a folded link could not be copied
        for name, owner, text in links:
            click.echo(f"{visible(name)} ({owner})\n  {text}")
    if sheet is not None and sheet != Path("-"):
        with complete_file(sheet, private=True) as file:
            file.write(page.encode())
    if as_json:
        return
    note = f"Each link signs one browser in, once, within {_LINK_DAYS} days. They are shown only now."
    click.echo(f"\n{note}" + (" Print the sheet, then delete it." if sheet is not None else ""), err=True)
    if url is None and is_loopback(urlsplit(server).hostname or ""):
        click.echo(f"They lead to {server}, which only this machine can open: give --url https://HOST.", err=True)


def _utf8(file: IO[bytes]) -> str:
    try:
        return file.read(_MAX_LIST_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise Failure(f"{file.name}, line {line}: this is not UTF-8 text; nothing was created") from error


@keys.command()
@click.argument("which", metavar="ID-OR-NAME")
@click.option(
    "--overlap",
    default="24h",
    show_default=True,
    metavar="TIME",
    help="How long the old key stays valid: 0, or for example 7d, 12h or 30m (up to 30d).",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def rotate(which: str, overlap: str, as_json: bool) -> None:
    """Replace a key by a new one and print it. It is shown only once.

    The new key has the same name, owner, scope and lifetime. The old key stays valid for the overlap, but not longer
    than before.
    """
    overlap_s = parse_duration_s("--overlap", overlap, or_zero=True)
    if overlap_s > api_keys.MAX_OVERLAP_S:
        raise click.UsageError("--overlap must be 30d at most")
    with open_database() as database:
        with database.read() as session:
            key_id = api_keys.current_id(session, which)
        row, old, key = api_keys.rotate(database, key_id, overlap_s=overlap_s, by=operator())
    new, replaces = _document(row, row.created_ms), _document(old, row.created_ms)
    facts = f"It replaces {old.id}, which expires {replaces['expires_at']}; the new key, {row.id}, expires "
    note = f"{_SHOWN_ONCE} {facts}{new['expires_at'] or 'never'}."
    _print(new | {"key": key, "replaces": replaces}, key, as_json=as_json, note=note)


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(as_json: bool) -> None:
    """List all keys, including revoked ones. Secrets are not shown."""
    with open_database() as database, database.read() as session:
        rows, now = api_keys.all_keys(session), session.scalar(select(now_ms())) or 0
        recorded = api_keys.last_recorded(session)
    used = [(row, time_text(api_keys.last_used(row, recorded.get(row.id)))) for row in rows]
    if as_json:
        click.echo(json.dumps([_document(row, now) | {"last_used_at": time} for row, time in used]))
        return
    columns = [
        Column(title, overflow="fold", no_wrap=title in ("ID", "SCOPE", "USED"))
        for title in ("ID", "NAME", "OWNER", "SCOPE", "USED", "STATE")
    ]
    print_table(  # of the time, the day: it fits 80 columns; --json has all
        columns,
        [(row.id, row.name, row.owner, row.scope, (time or "never")[:10], _state(row, now)) for row, time in used],
    )


@keys.command()
@click.argument("which", metavar="ID-OR-NAME")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def revoke(which: str, as_json: bool) -> None:
    """Revoke a key, by its id, its name, or the owner of one key.

    It takes effect within two seconds and ends browser sessions of the key.
    """
    with open_database() as database:
        row = api_keys.revoke(database, which, by=operator())
    revoked = _document(row, row.revoked_ms or row.created_ms)
    _print(revoked, f"revoked {row.id} ({row.name}, owner {row.owner})", as_json=as_json)


@keys.command()
@click.argument("owner")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def adopt(owner: str, as_json: bool) -> None:
    """Give all jobs, datasets and sweeps without an owner to OWNER.

    Those are what was created while keys were not required. They are hidden while keys are required. OWNER needs a
    valid key. The service may be running.
    """
    settings = Settings.from_env(os.environ, cores=1)
    settings_owners = [api_keys.of_settings(key).owner for key in settings.api_keys]
    with open_database() as database:
        owner = _named_owner(database, owner)
        adopted = adoption.adopt(database, owner, also_known=settings_owners, by=operator())
    nothing = "nothing to do: no job, dataset or sweep without an owner can be adopted now"
    text = f"{owner} now owns {adopted} that had no owner" if adopted else nothing
    _print({"owner": owner} | adopted.document(), text, as_json=as_json)


def _print(document: Mapping[str, Any], text: str, *, as_json: bool, note: str = "") -> None:
    """Print a document, or a text and a note on standard error."""
    click.echo(json.dumps(document) if as_json else text)
    if note and not as_json:
        click.echo(f"\n{note}", err=True)


@contextmanager
def open_database() -> Iterator[Database]:
    """The configured database, or that of the embedded stack, which is created if it does not exist."""
    settings = Settings.from_env(os.environ, cores=1)
    with closing(Database(settings.database_url, application="tapeline-cli")) as database:
        path = make_url(settings.database_url).database
        if database.is_sqlite and path and not Path(path).exists():
            Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            upgrade(database)
        if not is_current(database):
            raise Failure("the database schema has another version; upgrade it with: python -m migrations.upgrade")
        yield database


def operator() -> Actor:
    """The audit actor of commands: the user of the operating system."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        user = str(os.getuid())
    return Actor(address=f"terminal of {user}"[:60])


def _state(row: ApiKey, now: int) -> str:
    match api_keys.state_of(row, now=now):
        case "revoked":
            return f"revoked {time_text(row.revoked_ms)}"
        case "expired":
            return f"expired {time_text(row.expires_ms)}"
        case _ if row.replaced_by is not None:
            return f"replaced, expires {time_text(row.expires_ms)}"
        case _:
            return f"expires {time_text(row.expires_ms)}" if row.expires_ms is not None else "valid"


def _document(row: ApiKey, now: int) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "owner": row.owner,
        "scope": row.scope,
        "created_at": time_text(row.created_ms),
        "expires_at": time_text(row.expires_ms),
        "revoked_at": time_text(row.revoked_ms),
        "state": api_keys.state_of(row, now=now),
        "replaced_by": row.replaced_by,
    }


def time_text(milliseconds: int | None) -> str | None:
    """A database time as text."""
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@click.group(invoke_without_command=True)
@click.option("--owner", help="Only actions of this owner's keys.")
@click.option(
    "--action",
    type=click.Choice(ACTIONS),
    metavar="ACTION",
    help=f"Only this action: {', '.join(ACTIONS)}.",
)
@click.option("--subject", metavar="ID", help="Only actions on this job, key or dataset.")
@click.option(
    "--limit", default=50, show_default=True, type=click.IntRange(1, 100_000), help="Maximum number of entries."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document per line.")
@click.pass_context
def audit(
    context: click.Context, owner: str | None, action: str | None, subject: str | None, limit: int, as_json: bool
) -> None:
    """Show the audit log: changes to jobs, datasets and keys, and sign-ins, newest last.

    Run it on the machine that hosts the service, with the same environment.
    """
    if context.invoked_subcommand is not None:
        return
    with open_database() as database, database.read() as session:
        by = _named_owner(database, owner) if owner else None
        rows = audit_log.read(session, owner=by, action=action, subject=subject, limit=limit)[::-1]
    if as_json:
        for row in rows:
            click.echo(json.dumps(document(row)))
        return
    if not rows and not (owner or action or subject):
        click.echo("no entries: requests are recorded only while API keys are required", err=True)
        return
    columns = [Column(title, overflow="fold", no_wrap=title != "WHO") for title in ("AT", "ACTION", "SUBJECT", "WHO")]
    # They fit 80 columns; --json has all fields.
    print_table(
        columns,
        [(time_text(row.at_ms) or "", row.action, _subject(row), row.owner or row.address or "") for row in rows],
    )


def _subject(row: AuditEntry) -> str:
    """On what an action was, and for an owner, what it changed."""
    if row.action != AuditAction.CHANGE_OWNER:
        return row.subject or ""
    changes = (f"{name} {'default' if value is None else value}" for name, value in row.detail.items())
    return f"{row.subject or owners.EVERYBODY_ID}: {', '.join(changes)}"


@audit.command()
@click.argument("source", metavar="[FILE]", required=False, type=click.File("r", encoding="utf-8"))
@click.option("--head", metavar="DIGEST", help="A head digest that was printed earlier: the chain must contain it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def verify(context: click.Context, source: IO[str] | None, head: str | None, as_json: bool) -> None:
    """Verify the audit log, or an exported FILE (-: standard input).

    Recomputes the hash chain, and prints its head: keep it elsewhere, since anyone with full rights to the database
    can rebuild the chain. Exit code 1: the log does not match its seals, or the chain does not contain --head.
    """
    if source is not None:
        result = verify_chain(audit_file.read(source), head=head)
    else:
        with open_database() as database:
            result = verify_chain(audit_seals.items(database), head=head)
    if as_json:
        click.echo(json.dumps({"ok": result.fault is None, **asdict(result)}))
    else:
        _print_verification(result)
    context.exit(0 if result.fault is None else 1)


@audit.command()
@click.option(
    "-o", "--output", metavar="FILE", default="-", type=click.Path(dir_okay=False, allow_dash=True), help="Default: -."
)
def export(output: str) -> None:
    """Export the audit log as JSON lines.

    The file has the seals too: `tapeline audit verify FILE` verifies it without the database.
    """
    with open_database() as database, _open_output(output) as file:
        entries, seals = audit_file.write(audit_seals.items(database), file)
    click.echo(f"exported {counted(entries, 'entry')} and {counted(seals, 'seal')}", err=True)


@contextmanager
def _open_output(output: str) -> Iterator[IO[str]]:
    """A complete file, or standard output."""
    if output == "-":
        yield sys.stdout
        return
    with complete_file(Path(output), private=True) as file:
        text = TextIOWrapper(file, encoding="utf-8")
        yield text
        text.detach()  # flushed, not closed


def _print_verification(result: Verification) -> None:
    if result.fault is not None:
        raise Failure(f"the audit log does not match its seals: {result.fault}")
    ranges = counted(result.seals - result.removed_seals, "sealed range")
    click.echo(f"{counted(result.entries, 'entry')} in {ranges} match their seals")
    if result.removed_seals:
        removed = f"{counted(result.removed_entries, 'entry')} in {counted(result.removed_seals, 'older range')}"
        click.echo(f"removed by retention: {removed}; the oldest kept entry is from {time_text(result.oldest_ms)}")
    if result.unsealed:
        since = time_text(result.unsealed_since_ms)
        unsealed = counted(result.unsealed, "entry")
        click.echo(f"not sealed yet: {unsealed} since {since}; the scheduler seals new entries within 30 s")
    click.echo(f"head {result.head or 'none: nothing is sealed yet'}")


def document(row: AuditEntry) -> dict[str, Any]:
    """An entry as a JSON document."""
    return {
        "id": row.id,
        "at": time_text(row.at_ms),
        "action": row.action,
        "subject": row.subject,
        "owner": row.owner,
        "key": row.key_id,
        "address": row.address,
        "request_id": row.request_id,
        "detail": row.detail,
    }
