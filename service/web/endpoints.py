"""The decorator of every view: it validates the request, passes its content to the view, and documents the endpoint."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from flask import Response
from pydantic import BaseModel

from service.access.keys import Scope
from service.spec import validation
from service.spec.schema import StrictModel
from service.web import requests
from service.web.openapi.operations import Operation, describe
from service.web.requests import MAX_BODY_BYTES
from service.web.responses import as_json
from service.web.schemas.queries import NoQuery, Query

Result = Response | BaseModel | tuple[BaseModel, Mapping[str, str]] | None
"""What a view returns: a response, a model, a model and headers, or nothing (204)."""


def endpoint(
    tag: str,
    answers: Any,
    *,
    status: int = 200,
    scope: Scope | Literal["public"] | None = None,
    query: type[Query] | None = NoQuery,
    body: type[StrictModel] | None = None,
    document: type[StrictModel] | Literal["spec"] | None = None,
    form: type[BaseModel] | None = None,
    body_media: str | None = None,
    max_body_bytes: int = MAX_BODY_BYTES,
    invalid_body: Literal["invalid_spec", "invalid_input"] = "invalid_spec",
    headers: Sequence[str] = (),
    problems: Sequence[str] = (),
    other_media: Sequence[str] = (),
    also: Mapping[int, str | type[BaseModel]] | None = None,
    page: str | Callable[..., Response] | None = None,
) -> Callable[[Callable[..., Result]], Callable[..., Response]]:
    """Make a function the view of an endpoint; the arguments are the fields of ``Operation``.

    The view gets ``body`` or ``document`` as a keyword argument if the endpoint has one, and ``query`` if it has that
    parameter. A model that it returns becomes JSON with the endpoint's status.
    """
    operation = Operation(
        tag=tag,
        answers=answers,
        status=status,
        scope=scope,
        query=query,
        body=body,
        document=document,
        form=form,
        body_media=body_media,
        max_body_bytes=max_body_bytes,
        invalid_body=invalid_body,
        headers=headers,
        problems=problems,
        other_media=other_media,
        also=also or {},
        page=page,
    )

    def decorate(view: Callable[..., Result]) -> Callable[..., Response]:
        @functools.wraps(view)
        def run(**path: Any) -> Response:
            return _represent(view(**path, **query_for(view, operation), **_read_body(operation)), operation.status)

        describe(run, operation)
        return run

    return decorate


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
    """The JSON body as a keyword argument, if the endpoint accepts one."""
    if not operation.takes_json:
        return {}
    document = requests.read_json(also=operation.body_media, max_bytes=operation.max_body_bytes)
    if operation.body is None:
        return {"document": document}
    return {"body": validation.read_body(operation.body, document)}


def _represent(result: Result, status: int) -> Response:
    match result:
        case None:
            return Response(status=204)
        case BaseModel():
            return as_json(result, status)
        case (model, headers):
            return as_json(model, status, headers=headers)
        case _:
            return result
