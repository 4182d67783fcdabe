"""What a job does is asked of its kind: code outside ``service/kinds`` does not branch on which kind it is."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from service.states import JobKind

ROOT = Path(__file__).parents[3]
TABLE = Path(__file__).parent / "branches.json"
PACKAGES = ("engine", "service", "tapeline", "workers")
OWN = "service/kinds/"
ENUMERATIONS = {"Kind", "JobKind"}
SPECS = {"SupervisedSpec", "ResolvedPrediction", *(f"{kind.capitalize()}Spec" for kind in JobKind)}
TRAINERS = {f"{kind.capitalize()}Trainer" for kind in JobKind}
NAME = rf"""["'](?:{"|".join(JobKind)})["']"""
FLAG = re.compile(rf"is_(?:{'|'.join(JobKind)})")
IN_PAGES = re.compile(
    rf"[!=]==?\s*{NAME}|{NAME}\s*[!=]==?|\bcase {NAME}|[{{,]\s*(?:{'|'.join(JobKind)}): |\[{NAME}|{FLAG.pattern}",
    re.MULTILINE,
)


def branches(source: str) -> int:
    """The branches of a module: ``isinstance`` and patterns of a spec or trainer, members of an enumeration of kinds,
    comparisons with their names, tables by them and lists of them, and flags such as ``is_gan``."""
    return sum(1 for node in ast.walk(ast.parse(source)) for _ in _asked(node))


def _asked(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Call(func=ast.Name(id="isinstance"), args=[_, classes]):
            yield from (name for name in ast.walk(classes) if _called(name) in SPECS | TRAINERS)
        case ast.MatchClass(cls=cls) if _called(cls) in SPECS | TRAINERS:
            yield node
        case ast.Attribute(value=value, attr=attr) if _called(value) in ENUMERATIONS and attr.lower() in [*JobKind]:
            yield node
        case ast.Name(id=name) | ast.Attribute(attr=name) if FLAG.fullmatch(name):
            yield node
        case ast.Compare(left=left, comparators=comparators):
            yield from (operand for operand in (left, *comparators) if _names_kind(operand))
        case ast.List(elts=names) | ast.Tuple(elts=names) | ast.Set(elts=names):
            found = [name for name in names if _names_kind(name)]
            yield from found if len(found) > 1 else ()
        case ast.Dict(keys=keys) if len([key for key in keys if key is not None and _names_kind(key)]) > 1:
            yield from (key for key in keys if key is not None and _names_kind(key))


def _called(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _names_kind(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value in [*JobKind]


def counted() -> dict[str, int]:
    """The number of branches of each file that has some."""
    found = Counter[str]()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*"):
            name = path.relative_to(ROOT).as_posix()
            if name.startswith(OWN) or name == "service/states.py":
                continue
            if path.suffix == ".py":
                found[name] = branches(path.read_text("utf-8"))
            elif path.suffix in (".js", ".html"):
                found[name] = len(IN_PAGES.findall(path.read_text("utf-8")))
    return {name: count for name, count in sorted(found.items()) if count}


def test_branches_on_the_kind_of_a_job_only_become_fewer() -> None:
    allowed, found = json.loads(TABLE.read_text("utf-8")), counted()
    more = {name: (count, allowed.get(name, 0)) for name, count in found.items() if count > allowed.get(name, 0)}
    assert more == {}, "ask the kind (service/kinds), not which kind it is"
    assert found == allowed, f"fewer now: write these numbers to {TABLE.name}"


def test_each_form_of_a_branch_is_counted() -> None:
    forms = (
        "isinstance(spec, GanSpec)",
        "isinstance(spec, schema.GanSpec | ClassifierSpec)",
        "match spec:\n case RegressorSpec(): pass",
        "kind == Kind.GAN",
        'job["kind"] != "prediction"',
        '{"classifier": 1, "gan": 2}',
        "model.is_gan",
        'kind in ("gan", "regressor")',
    )
    assert [branches(form) for form in forms] == [1, 2, 1, 1, 1, 2, 1, 2]
    assert branches('isinstance(layer, Dense)\nArtifactKind.SAMPLE\nx == "images"\n{"kind": "gan"}') == 0
    assert len(IN_PAGES.findall('{ classifier: "a", gan: "b" }')) == 2
    assert len(IN_PAGES.findall("job.kind !== \"gan\" {% if kind == 'gan' %}")) == 2
