"""Every error that a client can see, as one JSON shape (RFC 9457), in one place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import structlog
from flask import Flask, Response, g, request
from gunicorn.http.errors import ParseException
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException

from service.contract.artifacts import ArtifactDamaged
from service.contract.errors import (
    ArtifactNotFound,
    Fault,
    IdempotencyConflict,
    IllegalTransition,
    InvalidCursor,
    JobNotFound,
    MalformedJson,
    SpecError,
    UploadExists,
    UploadInUse,
)
from service.contract.validation import MAX_FAULTS
from service.datasets import DatasetBroken, DatasetNotFound, DatasetUnavailable
from service.datasets.intake import UploadRefused

_log = structlog.get_logger("tapeline.web")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of problem; ``meaning`` is what the documentation says of it."""

    status: int
    title: str
    meaning: str


KINDS: Final[dict[str, Kind]] = {
    "bad_request": Kind(400, "The request cannot be read.", "It is not valid HTTP."),
    "malformed_json": Kind(
        400,
        "The body is not JSON.",
        "`line` and `column`, counted from 1, say where. NaN, Infinity and repeated keys are not JSON either.",
    ),
    "malformed_form": Kind(400, "The body is not a form.", "Send `multipart/form-data`, whole and with its boundary."),
    "invalid_parameter": Kind(
        400, "A parameter is not valid.", "`errors` names each parameter of the URL or header, and what it may be."
    ),
    "invalid_cursor": Kind(400, "The cursor is not valid.", "Start the list again without a cursor."),
    "key_required": Kind(401, "A key is needed.", "Send one of the service's keys as `Authorization: Bearer <key>`."),
    "scope_missing": Kind(
        403, "The key does not open this.", "`needed` is the scope that would: `read`, `submit` or `admin`."
    ),
    "foreign_origin": Kind(
        403,
        "The request comes from another site.",
        "A browser sent it for a page that is not this service's own. Programs send no `Origin`, or a key.",
    ),
    "not_found": Kind(404, "There is nothing at this address.", "Neither a page nor an endpoint has this path."),
    "job_not_found": Kind(404, "There is no such job.", "The id is unknown, deleted, or somebody else's."),
    "artifact_not_found": Kind(404, "There is no such file.", "Older checkpoints are removed as a job goes on."),
    "dataset_not_found": Kind(404, "There is no such data set.", "`GET /datasets` lists those there are."),
    "not_yet": Kind(404, "This is not there yet.", "The job has to finish an epoch first; try again then."),
    "no_verdicts": Kind(
        404,
        "Nobody judged these samples.",
        "There is a judge for digits only, and pictures that were made before there was one have no verdicts.",
    ),
    "method_not_allowed": Kind(405, "The method is not possible here.", "`Allow` names the methods that are."),
    "too_slow": Kind(408, "The body took too long.", "Send it over a faster line, or less of it."),
    "dataset_exists": Kind(409, "The name is taken.", "Choose another, or delete that data set first."),
    "dataset_in_use": Kind(
        409, "Jobs need this data set.", "`jobs` names those that have not ended; cancel them first."
    ),
    "dataset_fixed": Kind(409, "This data set cannot be deleted.", "Only uploads can: the others belong to all."),
    "illegal_transition": Kind(
        409, "The job's state does not allow this.", "`allowed_actions` names what is possible now."
    ),
    "wrong_kind": Kind(409, "This kind of job does not do that.", "Classifiers predict, and GANs generate."),
    "precondition_failed": Kind(412, "It is another one by now.", "Its `ETag` is not among those in `If-Match`."),
    "body_too_large": Kind(413, "The body is too large.", "`GET /limits` says how large a body may be."),
    "unsupported_media_type": Kind(
        415,
        "The content type is not supported.",
        "Send `Content-Type: application/json`; for an upload `multipart/form-data`.",
    ),
    "range_not_satisfiable": Kind(416, "The range lies beyond the file.", "`Content-Range` gives the file's size."),
    "foreign_host": Kind(
        421,
        "This service does not answer to that host name.",
        "The `Host` header must be a local name, or one in `TAPELINE_ALLOWED_HOSTS`.",
    ),
    "invalid_spec": Kind(
        422,
        "The spec is not valid.",
        "`errors` names every fault at once: a JSON pointer, what is wrong, a code, and often a suggestion.",
    ),
    "invalid_input": Kind(
        422, "What was sent cannot be used.", "`errors` names every fault: a JSON pointer, what is wrong, and a code."
    ),
    "invalid_upload": Kind(
        422,
        "The files are no data set.",
        "`errors` names each field of the form that has to change, and why.",
    ),
    "idempotency_conflict": Kind(
        422, "The idempotency key was used before.", "It came with another body; take a new key for a new request."
    ),
    "quota_exceeded": Kind(
        429, "This would be more than one owner may have.", "`GET /limits` shows how much that is; see `Retry-After`."
    ),
    "rate_limited": Kind(429, "Too many requests.", "`Retry-After` says how many seconds to wait."),
    "internal": Kind(500, "Something went wrong here.", "The log has it under this `request_id`."),
    "artifact_damaged": Kind(500, "The file cannot be read.", "It is missing or damaged in the artifact folder."),
    "database_unavailable": Kind(
        503, "The database does not answer.", "Try again; with the same `Idempotency-Key`, a job is made once."
    ),
    "dataset_unavailable": Kind(503, "The data set cannot be read now.", "`detail` says why."),
    "too_many_uploads": Kind(503, "Too many uploads at a time.", "Try again in a few seconds."),
    "storage_full": Kind(507, "There is no room for this.", "Whoever runs the service has to make some."),
    "too_many_streams": Kind(503, "Too many streams are open.", "Close some, or try again later."),
}
"""All problems by their ``code``."""

_BY_STATUS: Final = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "unsupported_media_type",
}


class Problem(Exception):
    """Ends a request with one of ``KINDS``."""

    def __init__(self, code: str, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any) -> None:
        super().__init__(detail)
        self.code, self.detail, self.headers, self.members = code, detail, dict(headers or {}), members


def answer(
    code: str, detail: str, *, headers: Mapping[str, str] | None = None, status: int | None = None, **members: Any
) -> Response:
    """The response for a problem.

    Args:
        status: where it is not the kind's own.
        members: further fields, such as ``errors``.
    """
    kind = KINDS[code]
    if "errors" in members:
        faults = members["errors"]
        members = {"error_count": len(faults), **members, "errors": faults[:MAX_FAULTS]}
    document = {
        "type": f"/docs#problem-{code}",
        "title": kind.title,
        "status": status or kind.status,
        "detail": detail,
        "instance": request.path,
        "code": code,
        "request_id": g.get("request_id"),
        **members,
    }
    response = Response(
        json.dumps(document, ensure_ascii=False) + "\n", status or kind.status, content_type="application/problem+json"
    )
    response.headers.update(headers or {})
    response.headers["Cache-Control"] = "no-store"
    return response


def invalid_spec(error: SpecError, **members: Any) -> Response:
    """The response for a spec with faults.

    Args:
        members: further fields.
    """
    faults = [fault_document(fault) for fault in error.faults]
    count = "1 field needs" if error.total == 1 else f"{error.total:,} fields need"
    detail = f"{count} attention: {error}"[:1000]
    return answer("invalid_spec", detail, errors=faults, error_count=error.total, **members)


def fault_document(fault: Fault) -> dict[str, Any]:
    """A fault of a spec as an entry of ``errors``."""
    document = {"pointer": fault.pointer, "detail": fault.detail, "code": fault.code}
    return document | ({"suggestion": fault.suggestion} if fault.suggestion else {})


def register(app: Flask) -> None:
    """Make every error that leaves a view a problem."""

    @app.errorhandler(Problem)
    def _(error: Problem) -> Response:
        return answer(error.code, error.detail, headers=error.headers, **error.members)

    @app.errorhandler(MalformedJson)
    def _(error: MalformedJson) -> Response:
        return answer("malformed_json", str(error), line=error.line, column=error.column)

    @app.errorhandler(SpecError)
    def _(error: SpecError) -> Response:
        return invalid_spec(error)

    @app.errorhandler(JobNotFound)
    def _(error: JobNotFound) -> Response:
        return answer("job_not_found", str(error)[:200])

    @app.errorhandler(ArtifactNotFound)
    def _(error: ArtifactNotFound) -> Response:
        return answer("artifact_not_found", str(error)[:200])

    @app.errorhandler(DatasetNotFound)
    def _(error: DatasetNotFound) -> Response:
        return answer("dataset_not_found", str(error)[:500])

    @app.errorhandler(UploadRefused)
    def _(error: UploadRefused) -> Response:
        faults = [{"parameter": field, "detail": why, "code": error.code} for field, why in error.faults.items()]
        return answer("invalid_upload", str(error)[:1000], errors=faults)

    @app.errorhandler(UploadExists)
    def _(error: UploadExists) -> Response:
        return answer("dataset_exists", str(error))

    @app.errorhandler(UploadInUse)
    def _(error: UploadInUse) -> Response:
        return answer("dataset_in_use", str(error), jobs=list(error.jobs[:100]))

    @app.errorhandler(IllegalTransition)
    def _(error: IllegalTransition) -> Response:
        return answer("illegal_transition", str(error), job_status=error.status, allowed_actions=list(error.allowed))

    @app.errorhandler(IdempotencyConflict)
    def _(error: IdempotencyConflict) -> Response:
        return answer("idempotency_conflict", str(error))

    @app.errorhandler(InvalidCursor)
    def _(error: InvalidCursor) -> Response:
        return answer("invalid_cursor", str(error))

    @app.errorhandler(ArtifactDamaged)
    def _(error: ArtifactDamaged) -> Response:
        _log.error("artifact damaged", path=error.path, reason=error.reason)
        return answer("artifact_damaged", "the file's row is there, but its bytes cannot be read")

    @app.errorhandler(DatasetUnavailable)
    @app.errorhandler(DatasetBroken)
    def _(error: DatasetUnavailable | DatasetBroken) -> Response:
        _log.warning("data set cannot be read", error=str(error))
        return answer(
            "dataset_unavailable", f"the data set cannot be read: {error.reason}", headers={"Retry-After": "60"}
        )

    @app.errorhandler(OperationalError)
    @app.errorhandler(InterfaceError)
    @app.errorhandler(InternalError)
    @app.errorhandler(PoolTimeout)
    def _(error: Exception) -> Response:
        _log.error("database unavailable", error=str(getattr(error, "orig", error)))
        return answer("database_unavailable", "the database does not answer", headers={"Retry-After": "5"})

    @app.errorhandler(ParseException)
    def _(error: ParseException) -> Response:
        return answer("bad_request", "the body's chunks are broken", headers={"Connection": "close"})

    @app.errorhandler(HTTPException)
    def _(error: HTTPException) -> Response:
        status = error.code or 500
        if status < 400:  # a redirect is no problem
            return Response(status=status, headers=dict(error.get_headers()))
        code = _BY_STATUS.get(status, "internal" if status >= 500 else "bad_request")
        allow = {name: value for name, value in error.get_headers() if name in ("Allow", "Retry-After")}
        details = {
            "not_found": f"there is nothing at {request.path[:200]}",
            "method_not_allowed": f"{request.method} is not possible here; {allow.get('Allow', 'nothing')} is",
            "body_too_large": f"the body is larger than {(request.max_content_length or 0) // 1024:,} KiB",
        }
        detail = details.get(code, HTTPStatus(status).phrase)
        return answer(code, detail, headers=allow, status=status)

    @app.errorhandler(Exception)
    def _(error: Exception) -> Response:
        _log.exception("request failed", path=request.path, exc_info=error)
        return answer("internal", "an unexpected error; the service's log has it under this request_id")
