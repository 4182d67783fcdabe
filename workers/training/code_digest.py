"""A digest of the code that decides the bits of a result: the engine, the translation of specs, the decoding of data.

Comments, docstrings, formatting and tests do not count: the digest covers the syntax trees, serialized here because
the output of ``ast.dump`` differs between versions of Python.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).parents[2]
DECIDES_BITS: Final = (
    "engine",
    "service/datasets/builtins.py",
    "service/datasets/cache.py",
    "service/datasets/formats/idx.py",
    "service/datasets/formats/streams.py",
    "service/datasets/info.py",
    "service/datasets/repository.py",
    "service/datasets/tables/analysis/moments.py",
    "service/datasets/tables/cells.py",
    "service/datasets/tables/plan.py",
    "service/datasets/tables/preprocessing.py",
    "service/datasets/tables/rows.py",
    "service/datasets/tables/values.py",
    "service/kinds/*/model.py",
    "service/kinds/*/training.py",
    "service/models/networks.py",
    "workers/training/build.py",
    "workers/training/epochs/snapshot.py",
    "workers/training/fork_state.py",
    "workers/training/diagnostics.py",
    "workers/training/final_scores.py",
)
"""Modules, folders of modules, and patterns of names of modules."""


@functools.cache
def digest() -> str:
    """The digest of the installed code."""
    return digest_of(_ROOT)


def digest_of(root: Path) -> str:
    """The digest of the code in a folder that contains the packages."""
    hasher = hashlib.sha256()
    for path in files(root):
        hasher.update(f"{path.relative_to(root).as_posix()}\n".encode())
        parts: list[str] = []
        _serialize(ast.parse(path.read_bytes()), parts.append)
        hasher.update("".join(parts).encode("utf-8", "surrogatepass"))
    return f"sha256:{hasher.hexdigest()}"


def files(root: Path) -> Iterator[Path]:
    """The modules in a folder that contains the packages."""
    for name in DECIDES_BITS:
        path = root / name
        yield from sorted(path.rglob("*.py")) if path.is_dir() else sorted(root.glob(name)) or [path]


def _serialize(value: object, add: Callable[[str], None]) -> None:
    """Add a syntax tree as text. Empty fields are omitted, because newer versions of Python add some.

    Every worker does this when it starts: generators would pass each text up through all levels of the tree.
    """
    if isinstance(value, ast.AST):
        add(f"{type(value).__name__}(")
        for name in value._fields:
            field = None if name in _NOT_CODE else getattr(value, name, None)
            if field is not None and field != []:
                add(f"{name}=")
                _serialize(field, add)
        add(")")
    elif isinstance(value, list):
        add("[")
        for item in value:
            if not _is_bare_string(item):
                _serialize(item, add)
        add("]")
    else:
        add(f"{type(value).__name__}:{value!r};")


_NOT_CODE: Final = {"ctx", "kind", "type_comment"}


def _is_bare_string(node: object) -> bool:
    """Whether a statement consists only of a string, such as a docstring."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
