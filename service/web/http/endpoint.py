"""The decorator of every view: it validates the request, passes its content to the view, and describes the endpoint."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Final, Generic, Literal, ParamSpec, TypeVar, cast

from flask import Response, current_app, request
from pydantic import BaseModel

from service.access.keys import Scope
from service.spec import validation
from service.spec.schema import StrictModel
from service.web.http import requests
from service.web.http.path_parameters import Values
from service.web.http.queries import NoQuery, Query, lists_for_others
from service.web.http.requests import LARGE_BODY_BYTES, MAX_BODY_BYTES
from service.web.http.responses import as_json, next_link

P = ParamSpec("P")
T = TypeVar("T")

PUBLIC: Final = "public"
"""In place of a scope: no key is required."""
Result = Response | BaseModel | tuple[BaseModel, Mapping[str, str]] | None
"""What a view returns: a response, a model, a model and headers, or nothing (204)."""
PathRule = Callable[[Values], bool]
"""Decides by the values of the path's parameters."""
_JSON_PROBLEMS: Final = ("malformed_json", "body_too_large", "unsupported_media_type")


class Tag(str):
    """A section of the documents, declared beside its operations.

    Attributes:
        text: what it is about, a sentence.
        after: the tag that it follows in documents.
    """

    text: str
    after: str

    def __new__(cls, name: str, text: str, *, after: str) -> Tag:  # noqa: D102
        tag = super().__new__(cls, name)
        tag.text, tag.after = text, after
        return tag


@dataclass(frozen=True, slots=True)
class Operation:
    """One endpoint, and the decorator of its view, whose docstring is the summary and the description.

    The view gets ``body`` or ``document`` as a keyword argument if the endpoint has one, and ``query`` if it has that
    parameter. A model that it returns becomes JSON with the endpoint's status.
    """

    tag: str
    response: Any
    """A model for JSON, another media type, or ``None`` for no content."""
    _: KW_ONLY
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
    file_media: Sequence[str] = ()
    """Media types of a file in place of the JSON body; the view gets ``None``, and receives it. The first one, which
    generators of clients know, is documented."""
    max_body_bytes: int = MAX_BODY_BYTES
    invalid_body: Literal["invalid_spec", "invalid_input"] = "invalid_spec"
    """The code of the problem if a JSON body has faults: other than for a spec, the view raises it."""
    headers: Sequence[str] = ()
    """Request headers that this endpoint uses; ``docs.openapi`` describes them."""
    problems: Sequence[str] = ()
    """Codes out of ``problem_kinds.KINDS``, besides those of a JSON body and those that are possible everywhere."""
    other_media: Sequence[str] = ()
    """Alternative media types of the response."""
    other_responses: Mapping[int, str | type[BaseModel]] = field(default_factory=dict)
    """Other responses by status: a description, or a model."""
    is_shown_by_links: bool | PathRule = False
    """Whether a share link of the job or sweep in its path permits it. It must show neither examples of a dataset nor
    private fields, which ``shared_view`` hides."""
    shows_examples: bool | PathRule = False
    """Whether it shows examples of a job's dataset, unless they are generated: a share link permits it for GANs only.
    """
    compares: Sequence[str] = ()
    """The URL parameters with all jobs and sweeps that it reads: a share link of these permits it."""
    path_examples: Mapping[str, str] = field(default_factory=dict)
    """Values of path parameters, where those of their declarations do not suit."""
    page: str | None = None
    """The page to which ``browsers`` redirects a browser (``/ui/jobs/{job_id}``); ``None``: it gets the JSON."""

    name: str | None = None
    """Its name in documents, if it is not that of its endpoint, such as ``shares.use``."""
    client: str | None = None
    """The client's method that sends it, ``create_webhook`` or ``Job.digests``, which ``make client`` writes; ``None``:
    there is none, or one that does more."""
    client_returns_data: bool = False
    """Whether this method returns the field ``data`` alone; that of a list, which has no more, always does."""
    is_repeatable: bool = False
    """Whether to send it twice has the effect of once; that of a GET, PUT or PATCH always has."""

    @property
    def lists_for_others(self) -> bool:
        """Whether an admin reads what belongs to the owner in a URL parameter, if its method is GET."""
        return lists_for_others(self.query)

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

    def __call__(self, function: Callable[P, T]) -> View[P, T]:
        """Make a function the view of this endpoint."""
        return View(self, function)


endpoint = Operation
"""The name as a decorator."""


class View(Generic[P, T]):
    """The view of an endpoint.

    Attributes:
        read: the function itself; pages show what it returns.
    """

    def __init__(self, operation: Operation, function: Callable[P, T]) -> None:
        functools.update_wrapper(self, function)
        self.operation, self.read = operation, function

    def __call__(self, **path: Any) -> Response:
        """Respond to the current request."""
        function = cast("Callable[..., Result]", self.read)
        result = function(**path, **query_for(function, self.operation), **_read_body(self.operation))
        return _respond(result, self.operation.status)


def operation_of(view: Callable[..., Any] | None) -> Operation | None:
    """The operation of a view, if it has one."""
    return view.operation if isinstance(view, View) else None


def current_operation() -> Operation | None:
    """The operation of the current request, if there is one."""
    return operation_of(current_app.view_functions.get(request.endpoint or ""))


def query_for(view: Callable[..., Any], operation: Operation) -> dict[str, Query]:
    """Validate the URL parameters; returns them as a keyword argument if the view has it.

    Raises:
        Problem: some are unknown or not valid.
    """
    if operation.query is None:
        return {}
    query = requests.read_query(operation.query)
    return {"query": query} if _takes_query(view) else {}


@functools.cache
def _takes_query(view: Callable[..., Any]) -> bool:
    return "query" in inspect.signature(view).parameters


def _read_body(operation: Operation) -> dict[str, Any]:
    """The JSON body as a keyword argument, if the endpoint accepts one; ``None`` for a file in its place."""
    if not operation.takes_json:
        return {}
    if request.mimetype in operation.file_media:
        return {"document": None}
    document = requests.read_json(also=operation.body_media, max_bytes=operation.max_body_bytes)
    if operation.body is None:
        return {"document": document}
    return {"body": validation.read_body(operation.body, document)}


def _respond(result: Result, status: int) -> Response:
    match result:
        case None:
            return Response(status=204)
        case BaseModel():
            return as_json(result, status, headers=next_link(getattr(result, "next_cursor", None)))
        case (model, headers):
            return as_json(model, status, headers=headers)
        case _:
            return result
