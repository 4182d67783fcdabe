# ruff: noqa: RUF001 - names are in many scripts
"""``tapeline keys create --from`` and ``tapeline keys link``, on both databases."""

from __future__ import annotations

import json
import re
import stat
import unicodedata
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import select

from service.access import keys, sign_in_links
from service.cli import main
from service.errors import LinkNotUsable
from service.storage.database import Database
from service.storage.owner_tables import Owner, SignInLink
from service.storage.tables import ApiKey

NAMES = "\ufeffÖzlem Işık\r\nAnna Müller\n\n  李小龙  \nanna.müller\nØystein Straße\nДарья O'Neil <b>\n"
Run = Callable[..., Result]
DAY_MS = 24 * 60 * 60 * 1000


@pytest.fixture
def run(migrated_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    environ = {"TAPELINE_HOME": str(tmp_path), "TAPELINE_DATABASE_URL": migrated_url}

    def run(*arguments: str, names: str | bytes = NAMES) -> Result:
        (tmp_path / "names.txt").write_bytes(names.encode() if isinstance(names, str) else names)
        return CliRunner().invoke(main, ["keys", *arguments], env=environ)

    return run


def signs_in(database: Database, link: str) -> str | None:
    """The owner whom a link signs in; ``None``: it cannot be used."""
    try:
        return sign_in_links.use(database, link.rpartition("/")[2])[0].owner
    except LinkNotUsable:
        return None


def test_each_name_gets_an_owner_a_key_and_a_link_that_works_once(database: Database, run: Run) -> None:
    result = run("create", "--from", "names.txt", "--expires", "180d", "--url", "https://ml.example/", "--json")
    assert result.exit_code == 0, result.output
    people = json.loads(result.stdout)
    owners = {item["name"]: item["owner"] for item in people}
    drawn, cyrillic = owners.pop("李小龙"), owners.pop("Дарья O'Neil <b>")
    assert owners == {
        "Özlem Işık": "ozlem-isik",
        "Anna Müller": "anna-muller",
        "anna.müller": "anna-muller-2",
        "Øystein Straße": "oystein-strasse",
    }
    assert all(re.fullmatch(r"owner-[0-9a-f]{8}", owner) for owner in (drawn, cyrillic))
    link = people[0]["link"]
    assert link.startswith("https://ml.example/ui/welcome/tpo_")
    assert [signs_in(database, link), signs_in(database, link)] == ["ozlem-isik", None]
    with database.read() as session:
        assert keys.display_name(session, drawn) == "李小龙"
        assert {row.scope for row in session.scalars(select(ApiKey))} == {"submit"}
        secrets = {row.digest for row in session.scalars(select(ApiKey))}
    assert not any(digest in result.output for digest in secrets)
    assert "tpl_" not in result.output


def test_the_sheet_has_a_card_with_a_code_for_each_name(run: Run, tmp_path: Path) -> None:
    result = run("create", "--from", "names.txt", "--sheet", "sheet.html")
    assert "give --url https://HOST" in result.stderr
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert lines[0] == ["NAME", "OWNER", "LINK"]
    sheet = tmp_path / "sheet.html"
    assert stat.S_IMODE(sheet.stat().st_mode) == 0o600
    text = sheet.read_text("utf-8")
    cards = text.split("<article>")[1:]
    assert len(cards) == len(lines) - 1 == 6
    assert all(link in card for card, (_, _, link) in zip(cards, lines[1:], strict=True))
    assert "Дарья O&#x27;Neil &lt;b&gt;" in cards[-1]
    assert "src=" not in text
    assert run("link", "anna-muller", "--sheet", "-").stdout.count("<article>") == 1
    for card in cards:
        ET.fromstring(re.search(r"<svg.*?</svg>", card, re.DOTALL)[0])  # type: ignore[index]


@pytest.mark.parametrize(
    ("names", "messages"),
    [
        ("", ["the list has no names: write one on each line"]),
        ("\n \n", ["the list has no names"]),
        ("Ann\nBob\n ann \n", ["line 3: 'ann' is also on line 1"]),
        ("Ann\n" + "x" * 201, ["line 2: the name has 201 characters, more than 200"]),
        ("A\x07nn\nBob\nBob", ["line 1: the name has a control character", "line 3: 'Bob' is also on line 2"]),
        ("\n".join(f"name {number}" for number in range(1001)), ["line 1001: more than 1,000 names"]),
        (b"Ann\nB\xf6b\n", ["names.txt, line 2: this is not UTF-8 text"]),
        ("Bob\nTaken", ["line 2: 'Taken' is the owner taken already", "tapeline keys link taken"]),
    ],
)
def test_a_list_with_faults_creates_nothing(
    database: Database, run: Run, names: str | bytes, messages: list[str]
) -> None:
    assert run("create", "--from", "names.txt", names="Taken").exit_code == 0
    refused = run("create", "--from", "names.txt", names=names)
    assert refused.exit_code == 1
    assert "nothing was created" in refused.stderr
    assert [message for message in messages if message not in refused.stderr] == []
    with database.read() as session:
        rows = [len(session.scalars(select(table.id)).all()) for table in (Owner, ApiKey, SignInLink)]
    assert rows == [1, 1, 1]


def test_a_new_link_replaces_one_that_was_lost(database: Database, run: Run) -> None:
    (first,) = json.loads(run("create", "--from", "names.txt", "--json", names="Özlem").stdout)
    (second,) = json.loads(run("link", "ozlem", "--url", "https://ml.example", "--json").stdout)
    assert (second["name"], second["owner"]) == ("Özlem", "ozlem")
    assert [signs_in(database, item["link"]) for item in (first, second)] == [None, "ozlem"]


@pytest.mark.parametrize("end", ["revoked", "expired"])
def test_an_owner_without_a_valid_key_gets_a_new_one_like_the_last(database: Database, run: Run, end: str) -> None:
    run("create", "--from", "names.txt", "--scope", "read", "--expires", "90d", names="Tom")
    with database.write() as session:
        old = session.scalars(select(ApiKey)).one()
        old.created_ms -= 100 * DAY_MS
        old.expires_ms = old.created_ms + 90 * DAY_MS + (0 if end == "expired" else 50 * DAY_MS)
    if end == "revoked":
        assert run("revoke", "Tom").exit_code == 0
    linked = run("link", "Tom")
    assert re.search(r"^No key of tom was valid: key_[0-9a-f]{12} is new\.$", linked.stderr, re.MULTILINE)
    with database.read() as session:
        new = session.scalars(select(ApiKey).where(ApiKey.id != old.id)).one()
        assert (new.name, new.owner, new.scope) == ("Tom", "tom", "read")
        assert new.expires_ms - new.created_ms == old.expires_ms - old.created_ms  # type: ignore[operator]
    assert signs_in(database, linked.stdout.splitlines()[1].split("\t")[-1]) == "tom"
    assert "is new" not in run("link", "Tom").stderr
    assert run("revoke", "Tom").stdout.startswith(f"revoked {new.id} "), "not the one that has expired"


def test_an_owner_is_named_by_its_display_name(database: Database, run: Run) -> None:
    names = "Özlem Yılmaz\n王芳\nTom"
    people = json.loads(run("create", "--from", "names.txt", "--json", names=names).stdout)
    ids = {item["name"]: item["owner"] for item in people}
    decomposed = unicodedata.normalize("NFD", "özlem yılmaz")
    for name, owner in ((decomposed, "ozlem-yilmaz"), ("王芳", ids["王芳"]), ("tom", "tom"), ("TOM", "tom")):
        assert json.loads(run("link", name, "--json").stdout)[0]["owner"] == owner
    assert json.loads(run("create", "laptop", "--owner", "王芳", "--json").stdout)["owner"] == ids["王芳"]
    assert json.loads(run("create", "desk", "--owner", "new", "--json").stdout)["owner"] == "new"
    unknown = run("link", "Özlem Yilmaz")
    assert (unknown.exit_code, "similar owners: Özlem Yılmaz (ozlem-yilmaz)" in unknown.stderr) == (1, True)
    assert "similar owners: Özlem" in run("create", "desk", "--owner", "Özlem").stderr
    assert "`tapeline owners` lists all" in run("link", "nobody").stderr
    with database.write() as session:
        session.get_one(Owner, "tom").display_name = "王芳"
    both = run("link", "王芳")
    assert (both.exit_code, f"2 owners are named '王芳': use an id, one of {ids['王芳']}, tom" in both.stderr) == (
        1,
        True,
    )


def test_a_key_is_revoked_by_the_name_of_its_owner(database: Database, run: Run) -> None:
    run("create", "--from", "names.txt", names="Özlem\nTom")
    assert run("revoke", "ÖZLEM").stdout.endswith("(Özlem, owner ozlem)\n")
    run("create", "laptop", "--owner", "Tom")
    assert "2 valid keys are named 'tom'" in run("revoke", "tom").stderr
    assert run("revoke", "Tom").exit_code == 0
    again = run("revoke", "Tom")
    assert (again.exit_code, "no valid key has the id or name 'Tom'" in again.stderr) == (1, True), (
        "the laptop is another"
    )
    assert "similar owners: tom" not in again.stderr
    assert "similar owners: Tom (tom)" in run("revoke", "Tomm").stderr
    with database.read() as session:
        assert [row.name for row in session.scalars(select(ApiKey)) if row.revoked_ms is None] == ["laptop"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either NAME, for one key, or --from FILE"),
        (["ann", "--from", "names.txt"], "give either NAME, for one key, or --from FILE"),
        (["ann", "--sheet", "sheet.html"], "--url and --sheet go with --from"),
        (["--from", "names.txt", "--owner", "team"], "--owner goes with NAME"),
    ],
)
def test_options_that_contradict_are_refused(run: Run, arguments: list[str], message: str) -> None:
    refused = run("create", *arguments)
    assert (refused.exit_code, message in " ".join(refused.stderr.split())) == (2, True)
