"""Mutants of a module: which there are, and how one is applied to a process that has imported the module."""

from __future__ import annotations

import ast
import copy
import functools
import inspect
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any


@dataclass(frozen=True)
class Mutant:
    """A fault in one place of a module."""

    module: str
    place: str
    """The function, or the constant of the module."""
    number: int
    """Among the mutants of this place."""
    line: int
    change: str
    is_in_function: bool = True


def swaps(node: ast.AST) -> Iterator[tuple[str, Callable[[Any], ast.AST | None]]]:
    """The changes that make sense for a node: what they do, and a function of a copy of it; ``None`` removes it."""
    opposite = {
        ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
        ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
        ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
        ast.And: ast.Or, ast.Or: ast.And,
    }  # fmt: skip

    def with_operator(kind: type[ast.AST]) -> Callable[[Any], ast.AST]:
        def change(copied: Any) -> ast.AST:
            if isinstance(copied, ast.Compare):
                copied.ops[0] = kind()
            else:
                copied.op = kind()
            return copied

        return change

    match node:
        case ast.Compare(ops=[operator]) | ast.BinOp(op=operator) | ast.BoolOp(op=operator):
            if type(operator) in opposite:
                other = opposite[type(operator)]
                yield f"{type(operator).__name__} -> {other.__name__}", with_operator(other)
        case ast.UnaryOp(op=ast.Not() | ast.Invert()):
            yield "negation removed", lambda copied: copied.operand
        case ast.If(test=_) | ast.IfExp(test=_):
            yield "condition negated", _negate
        case ast.Constant(value=bool() as value):
            yield f"{value} -> {not value}", lambda copied: ast.Constant(not copied.value)
        case ast.Constant(value=int() as value):
            yield f"{value} -> {value + 1}", lambda copied: ast.Constant(copied.value + 1)
        case ast.Call(func=ast.Name(id="and_" | "or_" as name)):
            other_name = "or_" if name == "and_" else "and_"
            yield f"{name} -> {other_name}", lambda copied: ast.Call(ast.Name(other_name, ast.Load()), copied.args, [])
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Raise():
            yield "statement removed", lambda copied: ast.Pass()
        case ast.Assign(targets=[ast.Attribute()]):
            yield "assignment removed", lambda copied: ast.Pass()
        case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
            yield "returns None", lambda copied: ast.Return(ast.Constant(None))
    if isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in ("where", "and_") and len(node.args) > 1:
            for index in range(len(node.args)):
                yield f"condition {index + 1} of {name} left out", _without_argument(index)
        if name == "locking" and node.keywords:
            for index, keyword in enumerate(node.keywords):
                yield f"{keyword.arg} left out", _without_keyword(index)


def _negate(copied: Any) -> ast.AST:
    copied.test = ast.UnaryOp(ast.Not(), copied.test)
    return copied  # type: ignore[no-any-return]


def _without_argument(index: int) -> Callable[[Any], ast.AST]:
    def change(copied: Any) -> ast.AST:
        del copied.args[index]
        return copied  # type: ignore[no-any-return]

    return change


def _without_keyword(index: int) -> Callable[[Any], ast.AST]:
    def change(copied: Any) -> ast.AST:
        del copied.keywords[index]
        return copied  # type: ignore[no-any-return]

    return change


class _Changer(ast.NodeTransformer):
    """Applies the change of a number, counting from 0, or only counts."""

    def __init__(self, number: int = -1) -> None:
        self.number, self.found = number, list[tuple[int, str]]()

    def visit(self, node: ast.AST) -> Any:
        changed = None
        for text, change in swaps(node):
            if len(self.found) == self.number:
                changed = change(copy.deepcopy(node))
            self.found.append((getattr(node, "lineno", 0), text))
        self.generic_visit(node)
        return node if changed is None else changed


def places(tree: ast.Module) -> dict[str, ast.AST]:
    """The functions, methods and private constants of a module, by name."""
    found: dict[str, ast.AST] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = node
        elif isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{item.name}": item for item in node.body if isinstance(item, ast.FunctionDef)}
        elif isinstance(node, ast.AnnAssign | ast.Assign) and (name := _private_constant(node)):
            found[name] = node
    return found


def _private_constant(node: ast.AnnAssign | ast.Assign) -> str | None:
    target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
    is_made = node.value is not None and any(isinstance(item, ast.Call) for item in ast.walk(node.value))
    return target.id if isinstance(target, ast.Name) and target.id.startswith("_") and is_made else None


def parsed(module: str) -> ast.Module:
    return ast.parse(Path(*module.split(".")).with_suffix(".py").read_text(encoding="utf-8"))


def _prepared(node: Any) -> Any:
    """A copy of a function or constant, of which everything may be changed."""
    prepared = copy.deepcopy(node)
    if isinstance(prepared, ast.FunctionDef):
        prepared.decorator_list, prepared.returns, prepared.args = (
            [],
            None,
            ast.arguments([], [], None, [], [], None, []),
        )
        if ast.get_docstring(prepared):
            prepared.body = prepared.body[1:]
    return prepared


def all_mutants(module: str) -> list[Mutant]:
    """Those of one module."""
    mutants = []
    for place, node in places(parsed(module)).items():
        changer = _Changer()
        changer.visit(_prepared(node))
        is_in_function = isinstance(node, ast.FunctionDef)
        mutants += [Mutant(module, place, number, *found, is_in_function) for number, found in enumerate(changer.found)]
    return mutants


def _changed_module(mutant: Mutant) -> ast.Module:
    tree = parsed(mutant.module)
    node: Any = places(tree)[mutant.place]
    changed = _Changer(mutant.number).visit(_prepared(node))
    if isinstance(node, ast.FunctionDef):
        kept = node.body[:1] if ast.get_docstring(node) else []
        node.body = [*kept, *changed.body]
    else:
        node.value = changed.value
    return ast.fix_missing_locations(tree)


def _functions(module: ModuleType) -> dict[str, FunctionType]:
    """The functions of a loaded module, without their decorators."""
    found: dict[str, FunctionType] = {}

    def add(prefix: str, members: dict[str, Any]) -> None:
        for name, member in members.items():
            match member:
                case property():
                    part: Any = member.fget
                case staticmethod() | classmethod():
                    part = member.__func__
                case FunctionType() | functools._lru_cache_wrapper():
                    part = inspect.unwrap(member)
                case _:
                    continue
            if isinstance(part, FunctionType) and part.__module__ == module.__name__:
                found[prefix + name] = part

    add("", vars(module))
    for name, member in list(vars(module).items()):
        if isinstance(member, type) and member.__module__ == module.__name__:
            add(f"{name}.", dict(vars(member)))
    return found


def _codes(code: CodeType, prefix: str = "") -> Iterator[tuple[str, CodeType]]:
    for item in code.co_consts:
        if isinstance(item, CodeType):
            yield prefix + item.co_name, item
            if not prefix:
                yield from _codes(item, f"{item.co_name}.")


def replace_code(module: ModuleType, tree: ast.Module, only: str | None = None) -> None:
    """Give the functions of a module, or one, the code of another tree."""
    compiled = dict(_codes(compile(tree, module.__file__ or "", "exec")))
    functions = {name: function for name, function in _functions(module).items() if name in compiled}
    for name in functions if only is None else [only]:
        functions[name].__code__ = compiled[name]


def forget_cached(module: ModuleType) -> None:
    """Have the functions of a module run, instead of returning what they have cached."""
    for member in vars(module).values():
        if isinstance(member, functools._lru_cache_wrapper):
            member.cache_clear()


def make_constants(module: ModuleType, tree: ast.Module) -> None:
    """Make the private constants of a module again, from a tree, and forget what its functions have cached."""
    forget_cached(module)
    for node in tree.body:
        if isinstance(node, ast.AnnAssign | ast.Assign) and (name := _private_constant(node)):
            value: Any = node.value
            made = ast.Assign([ast.Name(name, ast.Store())], value)
            exec(
                compile(ast.fix_missing_locations(ast.Module([made], [])), module.__file__ or "", "exec"), vars(module)
            )


def apply(mutant: Mutant, users: Collection[ModuleType]) -> None:
    """Change this process: the module, and the constants of those of ``users`` that import it. Number -1 of a place is
    the module as it is."""
    tree = _changed_module(mutant)
    module = sys.modules[mutant.module]
    if mutant.is_in_function:
        replace_code(module, tree, only=mutant.place)
    make_constants(module, tree)
    for user in users:
        if module in vars(user).values():
            make_constants(user, parsed(user.__name__))
