"""The documentation of an endpoint. ``endpoints.endpoint`` attaches it to a view."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from flask import Response
from pydantic import BaseModel

from service.access.keys import Scope
from service.spec.schema import StrictModel
from service.web.requests import LARGE_BODY_BYTES, MAX_BODY_BYTES
from service.web.schemas.queries import NoQuery, Query

PUBLIC: Final = "public"
"""In place of a scope: no key is required."""
_ATTRIBUTE: Final = "tapeline_operation"
_JSON_PROBLEMS: Final = ("malformed_json", "body_too_large", "unsupported_media_type")


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One endpoint. Its summary and description are the view's docstring."""

    tag: str
    answers: Any
    """A model for JSON, another media type, or ``None`` for no content."""
    status: int = 200
    scope: Scope | Literal["public"] | None = None
    """The scope that a key needs; ``None``: ``read`` for a GET, otherwise ``submit``."""
    query: type[Query] | None = NoQuery
    """The model of the URL parameters; ``None``: any are accepted, and ignored."""
    body: type[StrictModel] | None = None
    """The model of a JSON body."""
    document: type[StrictModel] | Literal["spec"] | None = None
    """The model of a JSON body that the view validates itself."""
    form: type[BaseModel] | None = None
    """The model of a multipart form that the view receives itself."""
    body_media: str | None = None
    """Another accepted media type of a JSON body."""
    max_body_bytes: int = MAX_BODY_BYTES
    invalid_body: Literal["invalid_spec", "invalid_input"] = "invalid_spec"
    """The code of the problem if a JSON body has faults: other than for a spec, the view raises it."""
    headers: Sequence[str] = ()
    """Request headers that this endpoint uses; ``builder`` describes them."""
    problems: Sequence[str] = ()
    """Codes out of ``problem_kinds.KINDS``, besides those of a JSON body and those that are possible everywhere."""
    other_media: Sequence[str] = ()
    """Alternative media types of the response."""
    also: Mapping[int, str | type[BaseModel]]
    """Other responses by status: a description, or a model."""
    page: str | Callable[..., Response] | None = None
    """What ``browsers`` shows at this URL: a view with the same parameters, or a URL to redirect to
    (``/ui/jobs/{job_id}``). ``None``: the JSON as a plain page."""

    @property
    def takes_json(self) -> bool:
        """Whether the request has a JSON body."""
        return self.body is not None or self.document is not None

    @property
    def all_problems(self) -> Sequence[str]:
        """``problems``, and those of a JSON body."""
        if not self.takes_json:
            return self.problems
        busy = ("busy",) if self.max_body_bytes > LARGE_BODY_BYTES else ()
        return (*_JSON_PROBLEMS, *busy, self.invalid_body, *self.problems)

    @property
    def has_page(self) -> bool:
        """Whether a browser gets HTML instead of JSON."""
        return callable(self.page) or (self.page is None and isinstance(self.answers, type))


def describe(view: Callable[..., Any], operation: Operation) -> None:
    """Attach an operation to its view."""
    setattr(view, _ATTRIBUTE, operation)


def operation_of(view: Callable[..., Any]) -> Operation | None:
    """The operation of a view, if it has one."""
    operation = getattr(view, _ATTRIBUTE, None)
    return operation if isinstance(operation, Operation) else None
