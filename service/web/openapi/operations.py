"""What the documentation says of an endpoint, written beside the endpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar

from flask import Response
from pydantic import BaseModel

from service.access.keys import Scope
from service.web.schemas.queries import NoQuery, Query

View = TypeVar("View", bound=Callable[..., Any])

PUBLIC: Final = "public"
"""Instead of a scope: needs no key."""
_ATTRIBUTE: Final = "tapeline_operation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One endpoint. Its summary and description are the view's docstring."""

    tag: str
    answers: Any
    """A model for JSON, or the media type of something else."""
    status: int = 200
    scope: Scope | Literal["public"] | None = None
    """What a key must open for it; ``None``: ``read`` to look at something, ``submit`` to change it."""
    query: type[Query] = NoQuery
    headers: Sequence[str] = ()
    """Request headers that mean something here; ``openapi`` explains them."""
    takes_spec: bool = False
    takes: type[BaseModel] | None = None
    """The model of a body that is no spec."""
    takes_as: str = "application/json"
    """The media type of that body."""
    problems: Sequence[str] = ()
    """Codes out of ``problems.KINDS``, besides those that are possible everywhere."""
    other_media: Sequence[str] = ()
    """Media types that the answer may have instead."""
    also: dict[int, str | type[BaseModel]] = field(default_factory=dict)
    """Other answers by status: a description, or a model."""
    page: str | Callable[..., Response] | None = None
    """What ``browsers`` shows a person at this address: a view with the same parameters, or where to send them
    (``/ui/jobs/{job_id}``). ``None``: JSON becomes a plain page by itself."""


def documented(
    tag: str,
    answers: Any,
    *,
    status: int = 200,
    scope: Scope | Literal["public"] | None = None,
    query: type[Query] = NoQuery,
    headers: Sequence[str] = (),
    takes_spec: bool = False,
    takes: type[BaseModel] | None = None,
    takes_as: str = "application/json",
    problems: Sequence[str] = (),
    other_media: Sequence[str] = (),
    also: dict[int, str | type[BaseModel]] | None = None,
    page: str | Callable[..., Response] | None = None,
) -> Callable[[View], View]:
    """Decorate a view with what the documentation says of it, as ``Operation`` has it."""
    operation = Operation(
        tag=tag,
        answers=answers,
        status=status,
        scope=scope,
        query=query,
        headers=headers,
        takes_spec=takes_spec,
        takes=takes,
        takes_as=takes_as,
        problems=problems,
        other_media=other_media,
        also=also or {},
        page=page,
    )

    def mark(view: View) -> View:
        setattr(view, _ATTRIBUTE, operation)
        return view

    return mark


def has_page(operation: Operation) -> bool:
    """Whether a browser gets HTML in place of this operation's JSON."""
    return callable(operation.page) or (operation.page is None and isinstance(operation.answers, type))


def operation_of(view: Callable[..., Any]) -> Operation | None:
    """What was said of a view, if anything was."""
    found = getattr(view, _ATTRIBUTE, None)
    return found if isinstance(found, Operation) else None
