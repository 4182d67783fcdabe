"""All operations of an app, with their names, methods and paths."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from flask import Flask

from service.web.http.endpoint import Operation, operation_of

_SENTENCE_END: Final = re.compile(r"(?<=\.) ")


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path."""

    name: str
    """Such as ``webhooks.create``."""
    method: str
    path: str
    """With its parameters in braces."""
    view: Callable[..., Any]
    operation: Operation

    @property
    def path_names(self) -> list[str]:
        """The names of the path's parameters, in their order."""
        return re.findall(r"{(\w+)}", self.path)

    @property
    def summary(self) -> str:
        """What it does: the first sentence of its text, without a period."""
        return self._sentence.rstrip(".")

    @property
    def details(self) -> str:
        """The rest of its text, in one line; possibly empty."""
        return " ".join(self.paragraphs)[len(self._sentence) :].lstrip()

    @property
    def paragraphs(self) -> list[str]:
        """Its text, each paragraph in one line."""
        return [" ".join(part.split()) for part in re.split(r"\n\s*\n", self._text)]

    @property
    def _sentence(self) -> str:
        return _SENTENCE_END.split(self.paragraphs[0], maxsplit=1)[0]

    @property
    def _text(self) -> str:
        return inspect.cleandoc(self.view.__doc__ or self.name)


def routes(app: Flask) -> Iterator[Route]:
    """The operations of an app: those of jobs first, the others by their paths."""
    for rule in sorted(app.url_map.iter_rules(), key=lambda rule: _order(rule.rule)):
        view = app.view_functions[rule.endpoint]
        operation = operation_of(view)
        if operation is None:
            continue
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            yield Route(operation.name or rule.endpoint, method, path, view, operation)


def _order(path: str) -> tuple[int, str]:
    prefixes = ["/jobs", "/datasets", "/"]
    return next((index for index, prefix in enumerate(prefixes) if path.startswith(prefix)), len(prefixes)), path
