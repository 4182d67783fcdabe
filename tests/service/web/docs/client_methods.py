"""Writes the methods of the client that send one request, from the operations: ``make client``."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from inspect import isclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from service.web.app import build_app
from service.web.docs.routes import Route, routes
from service.web.http import path_parameters
from service.web.http.queries import WhichCheckpoint
from tests.service.web.docs import upload_options

FOLDER = Path(__file__).parents[4] / "tapeline" / "methods"
WRITTEN = "Written by `make client`."
WIDTH = 120
PAGING = ("limit", "cursor")
CHECKPOINT = get_args(WhichCheckpoint)[1]
BOUND = {"Job": ("job_id",), "Model": ("model_name", "owner")}
"""Classes of the client that have methods, too, with the parameters that their objects stand for."""
SCALARS = {str: "str", int: "int", float: "float", bool: "bool"}


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument of a method, sent under the same name."""

    name: str
    type: str
    text: str
    default: str | None
    """As code; ``None``: it is required."""

    @property
    def code(self) -> str:
        return f"{self.name}: {self.type}" + ("" if self.default is None else f" = {self.default}")


def written() -> dict[str, str]:
    """The text of each module, by its name, before it is formatted."""
    of_client, of_objects = defaultdict[str, list[Route]](list), defaultdict[str, list[Route]](list)
    for route in routes(build_app()):
        if (name := route.operation.client) is not None:
            owner, dot, _ = name.rpartition(".")
            (of_objects[owner] if dot else of_client[route.operation.tag]).append(route)
    modules = {f"{tag.lower()}.py": _module(tag, found) for tag, found in of_client.items()}
    modules |= {f"{owner.lower()}.py": _module(owner, found) for owner, found in of_objects.items()}
    modules["upload_options.py"] = upload_options.module(WRITTEN)
    return modules | {"__init__.py": _package(sorted(of_client))}


def _package(tags: Sequence[str]) -> str:
    imports = "\n".join(f"from tapeline.methods.{tag.lower()} import {tag}" for tag in tags)
    return (
        f'"""The methods of a client that send one request each. {WRITTEN}"""\n\n{imports}\n\n\n'
        f'class GeneratedMethods({", ".join(tags)}):\n    """All of them."""\n'
    )


def _module(name: str, found: Sequence[Route]) -> str:
    """The methods of a class of the client, or those of ``Client`` for the operations with a tag."""
    base, title = ("BoundCalls", f"{name}Methods") if name in BOUND else ("Calls", name)
    methods = "\n\n".join(textwrap.indent(_method(route), "    ") for route in found)
    patches = dict.fromkeys(route.operation.body for route in found if route.method == "PATCH")
    text = f"Methods of ``{name if name in BOUND else 'Client'}``."
    methods = f'class {title}({base}):\n    """{text}"""\n\n{methods}'
    code = "\n\n\n".join([*(_changes(model) for model in patches if model), methods])
    helpers = [base, *(["given"] if "given(" in code else [])]
    typed = [name for name in ("Any", "Literal", "TypedDict", "Unpack") if re.search(rf"\b{name}\b", code)]
    collections = [name for name in ("Mapping", "Sequence") if f"{name}[" in code]
    imports = [
        *([f"from collections.abc import {', '.join(collections)}"] if collections else []),
        *([f"from typing import {', '.join(typed)}"] if typed else []),
        "",
        *(["from tapeline.method_types import Which"] if "Which" in code else []),
        f"from tapeline.methods.calls import {', '.join(helpers)}",
    ]
    head = f'"""Operations of the API: {name}. {WRITTEN}"""\n\nfrom __future__ import annotations\n\n'
    return head + "\n".join(imports) + "\n\n\n" + code + "\n"


def _changes(model: type[BaseModel]) -> str:
    """A dictionary with the fields of a merge patch, all of which may be left out."""
    fields = [f"    {name}: {_type(field.annotation)}" for name, field in model.model_fields.items()]
    return f'class {model.__name__}(TypedDict, total=False):\n    """Fields to change."""\n\n' + "\n".join(fields)


def _method(route: Route) -> str:
    operation, fields = route.operation, set(getattr(route.operation.response, "model_fields", ()))
    is_list = fields and fields <= {"data", "has_more", "next_cursor"}
    returns_data = bool(is_list or operation.client_returns_data)
    is_paged = "next_cursor" in fields and returns_data
    owner, _, method = (operation.client or "").rpartition(".")
    bound = BOUND.get(owner, ())
    query = [*_arguments(operation.query, *bound, *(PAGING if is_paged else ()))]
    body = [*_arguments(operation.body or (operation.document if isclass(operation.document) else None))]
    names = [Argument(name, _path_type(route, name), "", None) for name in route.path_names if name not in bound]
    by_position = [item for item in body if item.default is None or len(body) == 1]
    positional = names + (by_position if route.method != "PATCH" else [])
    keywords = [item for item in (*body, *query) if item not in positional and item.default is not None]
    if is_paged:
        keywords.append(Argument("limit", "int | None", "The most items to return.", "None"))
    signature = ["self", *(item.code for item in positional)]
    if route.method == "PATCH" and operation.body is not None:
        signature += ["/", f"**changes: Unpack[{operation.body.__name__}]"]
        sent = ["body=changes"]
    else:
        signature += ["*", *(item.code for item in keywords)] if keywords else []
        sent = [f"body={_given(body)}"] if body else []
    sent = ([f"query={_given(query)}"] if query else []) + sent
    if names:
        sent.insert(0, "{" + ", ".join(f'"{item.name}": {_named(item.name)}' for item in names) + "}")
    described = [item for item in (*positional, *(body if route.method == "PATCH" else keywords)) if item.text]
    call, returned = _call(route, returns_data, is_paged, sent)
    return "\n".join(
        [
            f"def {method}({', '.join(signature)}) -> {returned}:",
            textwrap.indent(_docstring(route, described), "    "),
            f"    {call}",
        ]
    )


def _call(route: Route, returns_data: bool, is_paged: bool, sent: Sequence[str]) -> tuple[str, str]:
    """The statement that sends the request, and the type of its result."""
    where = [f'"{route.method}"', f'"{route.path}"', *sent]
    if route.operation.response is None:
        return f"self._nothing({', '.join(where)})", "None"
    if is_paged:
        return f"return self._pages({', '.join([*where, 'limit=limit'])})", "list[dict[str, Any]]"
    repeatable = ["repeatable=True"] if route.operation.is_repeatable else []
    call = f"self._send({', '.join([*where, *repeatable])})"
    if returns_data:
        return f"return self._items({', '.join(where)})", "list[dict[str, Any]]"
    return f"return {call}", "dict[str, Any]"


def _arguments(model: type[BaseModel] | None, *left_out: str) -> Iterator[Argument]:
    for name, field in (model.model_fields if model else {}).items():
        extra = field.json_schema_extra
        if name in left_out or (isinstance(extra, dict) and extra.get("deprecated")):
            continue
        kind, default = _type(field.annotation), _default(field)
        if CHECKPOINT in field.metadata:
            kind = "Which"
        if name == "limit" and default is not None:  # the service's own is not repeated
            kind, default = f"{kind} | None", "None"
        yield Argument(name, kind, _rst(field.description or ""), default)


def _default(field: FieldInfo) -> str | None:
    if field.is_required():
        return None
    default = field.get_default(call_default_factory=True)
    return repr(default.value if isinstance(default, Enum) else default).replace("'", '"')


def _given(arguments: Sequence[Argument]) -> str:
    return f"given({', '.join(f'{item.name}={item.name}' for item in arguments)})"


def _named(name: str) -> str:
    sign = path_parameters.parameter(name).sign
    return f'{name}.removeprefix("{sign}")' if sign else name


def _path_type(route: Route, name: str) -> str:
    annotation = route.view.__annotations__.get(name, "str")
    return annotation if annotation in SCALARS.values() else "str"


def _type(annotation: Any) -> str:
    """A type of a field as code; other values than these are JSON."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    match origin:
        case _ if origin is Annotated:
            return _type(arguments[0])
        case _ if origin in (Union, UnionType):
            kinds = [_type(item) for item in arguments if item is not NoneType]
            return " | ".join([*dict.fromkeys(kinds), *(["None"] if NoneType in arguments else [])])
        case _ if origin is Literal:
            return f"Literal[{', '.join(map(_quoted, arguments))}]"
        case _ if origin is list:
            inner = arguments[0]
            return f"Sequence[{'str' if isclass(inner) and issubclass(inner, Enum) else _type(inner)}]"
    if annotation in SCALARS:
        return SCALARS[annotation]
    if isclass(annotation) and issubclass(annotation, Enum):
        return f"Literal[{', '.join(_quoted(item.value) for item in annotation)}]"
    return (
        "Mapping[str, Any]" if origin is dict or (isclass(annotation) and issubclass(annotation, BaseModel)) else "Any"
    )


def _quoted(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _rst(text: str) -> str:
    """Markdown as in docstrings: ``code`` has two backticks."""
    return re.sub(r"`([^`]+)`", r"``\1``", " ".join(text.split()))


def _docstring(route: Route, described: Sequence[Argument]) -> str:
    width = WIDTH - 8
    first, *others = route.paragraphs
    parts = [_wrapped(f'"""{_rst(first)}', width - 3), *(_wrapped(_rst(part), width) for part in others)]
    if described:
        lines = [
            textwrap.indent(_wrapped(f"{item.name}: {item.text}", width - 8, "    "), "    ") for item in described
        ]
        parts.append("\n".join(["Args:", *lines]))
    if len(parts) == 1 and "\n" not in parts[0] and len(parts[0]) + 3 <= width:
        return f'{parts[0]}"""'
    return "\n\n".join(parts) + '\n"""'


def _wrapped(text: str, width: int, indent: str = "") -> str:
    return textwrap.fill(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def present() -> dict[str, str]:
    """The same as the files have it."""
    found = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.py")}
    return {name: text for name, text in found.items() if WRITTEN in text}


if __name__ == "__main__":
    modules = written()
    for name in present().keys() - modules.keys():
        (FOLDER / name).unlink()
    for name, text in modules.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", str(FOLDER)], check=True)
