"""Owners, keys and sign-in links for a list of people: all or none."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import delete, select

from service.access import audit, keys, owners, sign_in_links
from service.access.audit import Actor, AuditAction
from service.access.keys import Scope
from service.errors import ServiceError
from service.storage.database import Database, now_ms
from service.storage.owner_tables import Owner, SignInLink
from service.storage.tables import ApiKey

MAX_NAMES: Final = 1000
MAX_NAME: Final = 200
_MAX_SHOWN: Final = 10
_MAX_SLUG: Final = 50
_LETTERS: Final = str.maketrans({"ı": "i", "ø": "o", "ł": "l", "đ": "d", "æ": "ae", "œ": "oe", "þ": "th", "ð": "d"})  # noqa: RUF001 - these letters are meant
"""Latin letters that Unicode does not decompose."""


class NamesRejected(ServiceError, ValueError):
    """A list of names has faults."""


@dataclass(frozen=True, slots=True)
class Invitation:
    """A person with an owner of their own, and the link that signs them in once."""

    name: str
    owner: str
    token: str
    new_key: str | None = None
    """The id of a key that was created because the owner had no valid one."""


def read_names(text: str) -> dict[str, int]:
    """The names of a list, one on each line that is not blank, with the numbers of their lines.

    Raises:
        NamesRejected: there is no name, there are more than ``MAX_NAMES``, or some are too long or there twice.
    """
    lines: dict[str, int] = {}
    by_form: dict[str, int] = {}
    faults = []
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text.removeprefix("\ufeff")), start=1):
        name = unicodedata.normalize("NFC", " ".join(line.split()))
        if not name:
            continue
        first = by_form.setdefault(owners.folded(name), number)
        if first != number:
            faults.append(f"line {number}: {name[:40]!r} is also on line {first}; tell them apart, as by an initial")
        elif len(name) > MAX_NAME:
            faults.append(f"line {number}: the name has {len(name):,} characters, more than {MAX_NAME}")
        elif any(unicodedata.category(letter) == "Cc" for letter in name):
            faults.append(f"line {number}: the name has a control character")
        lines[name] = number
    if not lines:
        faults.append("the list has no names: write one on each line")
    elif len(by_form) > MAX_NAMES:
        faults.append(f"line {list(lines.values())[MAX_NAMES]}: more than {MAX_NAMES:,} names; split the list")
    _raise(faults)
    return lines


def create(
    database: Database, names: dict[str, int], *, scope: Scope, lifetime_s: float | None = None, by: Actor | None = None
) -> list[Invitation]:
    """Create an owner, a key and a sign-in link for each name.

    Raises:
        NamesRejected: an owner has one of these names already.
    """
    invitations = []
    with database.write() as session:
        now = session.scalar(select(now_ms())) or 0
        taken = set(owners.all_owners(session))
        known = {
            owners.folded(name): owner
            for owner, name in session.execute(select(Owner.id, Owner.display_name))
            if name is not None
        }
        _raise(
            [
                f"line {line}: {name!r} is the owner {known[owners.folded(name)]} already; a new link for them: "
                f"tapeline keys link {known[owners.folded(name)]}"
                for name, line in names.items()
                if owners.folded(name) in known
            ]
        )
        for name in names:
            owner = _owner_id(name, taken)
            taken.add(owner)
            session.add(Owner(id=owner, display_name=name, weight=1.0, created_ms=now))
            row, _ = keys.add(session, name=name[:100], owner=owner, scope=scope, lifetime_s=lifetime_s, by=by)
            invitations.append(Invitation(name, owner, sign_in_links.create(session, row.id)))
    return invitations


def new_link(database: Database, owner: str, *, by: Actor | None = None) -> Invitation:
    """A new sign-in link of an owner's newest valid key; links of the owner that were not used become invalid.

    If no key is valid, a new one is created like the newest one.

    Args:
        owner: id or display name.

    Raises:
        OwnerNotFound: see ``owners.find``.
        KeyNotFound: the owner has never had a key.
    """
    with database.write() as session:
        owner = owners.find(session, owner)
        key_ids = keys.valid_ids(session, owner)
        new_key = None if key_ids else keys.add_again(session, owner, by=by).id
        key_id = new_key or key_ids[0]
        of_owner = select(ApiKey.id).where(ApiKey.owner == owner)
        session.execute(delete(SignInLink).where(SignInLink.key_id.in_(of_owner), SignInLink.used_ms.is_(None)))
        audit.record(session, by, AuditAction.INVITE, key_id, key_owner=owner)
        name = owners.display_name(session, owner)
        return Invitation(name, owner, sign_in_links.create(session, key_id), new_key)


def _owner_id(name: str, taken: Collection[str]) -> str:
    """An id of ASCII letters: of the name, or, if letters of it have no such form, of its digest."""
    text = unicodedata.normalize("NFKD", name.casefold().translate(_LETTERS))
    letters = "".join(letter for letter in text if not unicodedata.combining(letter))
    slug = re.sub(r"[^a-z0-9]+", "-", letters).strip("-")[:_MAX_SLUG].rstrip("-")
    if not slug or any(letter.isalnum() and not letter.isascii() for letter in letters):
        slug = f"owner-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    number, owner = 1, slug
    while owner in taken:
        number += 1
        owner = f"{slug}-{number}"
    return owner


def _raise(faults: Sequence[str]) -> None:
    if faults:
        more = [f"and {len(faults) - _MAX_SHOWN} more"] if len(faults) > _MAX_SHOWN else []
        raise NamesRejected("\n".join([f"nothing was created: {faults[0]}", *faults[1:_MAX_SHOWN], *more]))
