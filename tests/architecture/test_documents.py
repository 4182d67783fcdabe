"""Documents mention only existing files, headings, ``make`` targets, modules and ``tapeline`` commands."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from service.cli import main
from tapeline import Client, History, Job, Model, Prediction, Records, Sweep
from tapeline.operations.datasets import Dataset

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path
    for pattern in (
        "*.md",
        "docs/**/*.md",
        "benchmarks/*.md",
        "engine/*.md",
        "service/**/*.md",
        "tapeline/*.md",
        "workers/*.md",
    )
    for path in ROOT.glob(pattern)
)
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
MAX_README_LINES = 120


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub derives from the headings."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=[str(path.relative_to(ROOT)) for path in DOCUMENTS])
def test_every_relative_link_and_anchor_resolves(path: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", path.read_text(encoding="utf-8")))
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def code(path: Path) -> str:
    """All text formatted as code, one snippet per line."""
    text = path.read_text(encoding="utf-8")
    inline = re.findall(r"`([^`]+)`", FENCE.sub("", text))
    return "\n".join([*FENCE.findall(text), *(" ".join(snippet.split()) for snippet in inline)])


def test_every_make_target_in_a_document_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    mentioned = {
        target for path in DOCUMENTS for target in re.findall(r"^make ([a-z][a-z-]*)", code(path), re.MULTILINE)
    }
    assert len(mentioned) > 15
    assert mentioned <= targets


def test_the_readme_begins_with_the_two_commands_of_a_fresh_machine_and_ci_runs_the_second() -> None:
    first_block = FENCE.findall((ROOT / "README.md").read_text(encoding="utf-8"))[0]
    assert re.findall(r"^make [a-z]+", first_block, re.MULTILINE) == ["make demo", "make test"]
    commands = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    in_foreground = [line for line in commands if line.startswith("make") and "&" not in line]
    assert in_foreground[0] == "make test"


def test_every_test_and_benchmark_in_a_document_exists() -> None:
    paths = {name for path in DOCUMENTS for name in re.findall(r"\b(?:tests|benchmarks)/[\w./]*\w", code(path))}
    assert len(paths) > 15
    assert {name for name in paths if not (ROOT / name).exists()} == set()


def test_every_fixture_and_marker_in_the_rules_for_tests_exists() -> None:
    section = (ROOT / "docs" / "development.md").read_text(encoding="utf-8").partition("\n## Writing tests\n")[2]
    mentioned = set(re.findall(r"`([a-z]+(?:_[a-z]+)*)`", section.partition("\n## ")[0]))
    fixtures = {
        name
        for path in (ROOT / "tests").rglob("conftest.py")
        for name in re.findall(r"^def (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    markers = re.findall(r'^    "(\w+): ', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert {"private_url", "stack"} <= mentioned <= fixtures | {*markers}


def test_every_module_that_a_document_or_the_makefile_runs_exists() -> None:
    texts = [*(code(path) for path in DOCUMENTS), (ROOT / "Makefile").read_text(encoding="utf-8")]
    mentioned = {name for text in texts for name in re.findall(r"-m ((?:tests|benchmarks)\b[\w.]*)\b", text)}
    assert len(mentioned) > 10
    for name in mentioned:
        file = ROOT / name.replace(".", "/")
        assert file.with_suffix(".py").exists() or (file / "__main__.py").exists(), name


def test_every_tapeline_command_in_a_document_exists() -> None:
    context = click.Context(main)
    commands = set(main.list_commands(context))
    pattern = re.compile(r"(?:^|web )tapeline ([a-z]+(?:-[a-z]+)*)", re.MULTILINE)
    mentioned = {name for path in DOCUMENTS for name in pattern.findall(code(path))}
    assert len(mentioned) > 15
    assert mentioned <= commands


def test_the_guide_lists_every_command() -> None:
    text = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
    listed = {name for row in re.findall(r"^\| [a-z ]+ \| (`.*) \|$", text, re.MULTILINE) for name in row.split(", ")}
    assert listed == {f"`{name}`" for name in main.list_commands(click.Context(main))}


@pytest.mark.parametrize("kind", [Client, Job, Model, Sweep, Dataset])
def test_the_document_of_the_client_has_every_method_and_no_other(kind: type) -> None:
    former = {name for name, member in vars(kind).items() if hasattr(member, "__wrapped__")} | {"list"}
    names = {name for owner in kind.__mro__[:-1] if "tapeline" in owner.__module__ for name in vars(owner)}
    public = {name for name in names if not name.startswith("_")} - former
    text = code(ROOT / "docs" / "client.md")
    assert set(re.findall(rf"(?<![\w.]){kind.__name__.lower()}\.(\w+)", text)) == public


@pytest.mark.parametrize("kind", [History, Prediction, Records])
def test_the_document_of_the_client_has_what_its_results_offer(kind: type) -> None:
    text = code(ROOT / "docs" / "client.md")
    assert [name for name in vars(kind) if not name.startswith("_") and f".{name}" not in text] == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= MAX_README_LINES
