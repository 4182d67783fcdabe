"""All errors that a client can see, as problem documents (RFC 9457). ``browsers`` renders them as pages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any, Final

import structlog
from flask import Flask, Response, g, request
from gunicorn.http.errors import ParseException
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException

from service.datasets.errors import DatasetBroken, DatasetChanged, DatasetNotFound, DatasetUnavailable
from service.datasets.importer import UploadRefused
from service.errors import (
    ArtifactNotFound,
    Busy,
    DatasetFixed,
    DatasetNameTaken,
    Fault,
    FoldsNotFound,
    IdempotencyConflict,
    IllegalSweepAction,
    IllegalTransition,
    InvalidCursor,
    JobNotFound,
    KeyNotFound,
    KeyNotRotatable,
    MalformedJson,
    NoSpaceLeft,
    SpecError,
    StorageFull,
    StorageQuotaExceeded,
    SweepNotFound,
    TrialNotFound,
    UnusableParameter,
    UploadExists,
    UploadInUse,
)
from service.spec.faults import MAX_FAULTS
from service.storage.artifacts import ArtifactDamaged, ExtraMissing
from service.storage.database import is_disk_full
from service.web.http.problem_kinds import KINDS

_log = structlog.get_logger("tapeline.web")
STORAGE_WAIT_S: Final = 60
"""``Retry-After`` of a refusal because of stored files: clients do not wait this long, but report it at once."""

_BY_STATUS: Final = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "unsupported_media_type",
}

_BY_ERROR: Final[dict[type[Exception], str]] = {
    JobNotFound: "job_not_found",
    SweepNotFound: "sweep_not_found",
    TrialNotFound: "trial_not_found",
    FoldsNotFound: "folds_not_found",
    ArtifactNotFound: "artifact_not_found",
    DatasetNotFound: "dataset_not_found",
    DatasetNameTaken: "dataset_exists",
    NoSpaceLeft: "dataset_space_exceeded",
    DatasetFixed: "dataset_fixed",
    DatasetChanged: "dataset_changed",
    IdempotencyConflict: "idempotency_conflict",
    InvalidCursor: "invalid_cursor",
    ExtraMissing: "extra_missing",
}
"""The code of each error whose text is the detail."""


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
        status: replaces the kind's own status.
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


def invalid_input(faults: Sequence[Fault], total: int | None = None) -> Problem:
    """The problem for faulty input other than a spec."""
    summary = "; ".join(f"{fault.pointer}: {fault.detail}" for fault in faults)
    documents = [fault_document(fault) for fault in faults]
    return Problem("invalid_input", summary[:1000], errors=documents, error_count=total or len(faults))


def invalid_parameters(faults: Sequence[Mapping[str, str]]) -> Problem:
    """The problem for faulty URL parameters or headers; each fault has ``parameter``, ``detail`` and ``code``."""
    detail = "; ".join(f"{fault['parameter']}: {fault['detail']}" for fault in faults)
    return Problem("invalid_parameter", detail[:1000], errors=list(faults))


def invalid_parameter(name: str, detail: str) -> Problem:
    """The problem for one parameter whose value is not allowed."""
    return invalid_parameters([{"parameter": name, "detail": detail, "code": "invalid_value"}])


def fault_document(fault: Fault) -> dict[str, Any]:
    """A fault of a spec as an entry of ``errors``."""
    document = {"pointer": fault.pointer, "detail": fault.detail, "code": fault.code}
    return document | ({"suggestion": fault.suggestion} if fault.suggestion else {})


def _as_it_says(code: str, error: Exception) -> Response:
    return answer(code, str(error)[:500])


def register(app: Flask) -> None:
    """Convert every exception that leaves a view to a problem."""
    for kind, code in _BY_ERROR.items():
        app.register_error_handler(kind, partial(_as_it_says, code))

    @app.errorhandler(Problem)
    def _(error: Problem) -> Response:
        return answer(error.code, error.detail, headers=error.headers, **error.members)

    @app.errorhandler(MalformedJson)
    def _(error: MalformedJson) -> Response:
        return answer("malformed_json", str(error), line=error.line, column=error.column)

    @app.errorhandler(SpecError)
    def _(error: SpecError) -> Response:
        return invalid_spec(error)

    @app.errorhandler(KeyNotFound)
    def _(error: KeyNotFound) -> Response:
        return answer("key_not_found", f"there is no key {error.id_or_name[:60]!r}")

    @app.errorhandler(KeyNotRotatable)
    def _(error: KeyNotRotatable) -> Response:
        allowed = [] if error.state == "revoked" else ["revoke"]
        return answer(
            "key_not_rotatable", str(error), state=error.state, replaced_by=error.replaced_by, allowed_actions=allowed
        )

    @app.errorhandler(UploadRefused)
    def _(error: UploadRefused) -> Response:
        faults = [{"parameter": field, "detail": reason, "code": error.code} for field, reason in error.faults.items()]
        return answer("invalid_upload", str(error)[:1000], errors=faults)

    @app.errorhandler(UploadExists)
    def _(error: UploadExists) -> Response:
        return answer("dataset_exists", str(error), version=error.version)

    @app.errorhandler(StorageFull)
    def _(error: StorageFull) -> Response:
        _log.error("an upload could not be stored", error=error.reason)
        return answer("storage_full", str(error))

    @app.errorhandler(StorageQuotaExceeded)
    def _(error: StorageQuotaExceeded) -> Response:
        detail = f"{error}; delete jobs, or ask the operator for a higher limit"
        wait = {"Retry-After": str(STORAGE_WAIT_S)}
        return answer("quota_exceeded", detail, headers=wait, retry_after_s=STORAGE_WAIT_S)

    @app.errorhandler(UploadInUse)
    def _(error: UploadInUse) -> Response:
        return answer("dataset_in_use", str(error), jobs=list(error.jobs[:100]))

    @app.errorhandler(Busy)
    def _(error: Busy) -> Response:
        headers = {"Retry-After": str(error.retry_after_s)}
        return answer(error.code, str(error), headers=headers, retry_after_s=error.retry_after_s)

    @app.errorhandler(IllegalTransition)
    def _(error: IllegalTransition) -> Response:
        return answer("illegal_transition", str(error), job_status=error.status, allowed_actions=list(error.allowed))

    @app.errorhandler(IllegalSweepAction)
    def _(error: IllegalSweepAction) -> Response:
        return answer("illegal_transition", str(error), status_now=error.status, allowed_actions=list(error.allowed))

    @app.errorhandler(UnusableParameter)
    def _(error: UnusableParameter) -> Response:
        problem = invalid_parameter(error.parameter, str(error))
        return answer(problem.code, problem.detail, **problem.members)

    @app.errorhandler(ArtifactDamaged)
    def _(error: ArtifactDamaged) -> Response:
        _log.error("artifact damaged", path=error.path, reason=error.reason)
        return answer("artifact_damaged", "the file is registered, but cannot be read")

    @app.errorhandler(DatasetUnavailable)
    @app.errorhandler(DatasetBroken)
    def _(error: DatasetUnavailable | DatasetBroken) -> Response:
        _log.warning("dataset cannot be read", error=str(error))
        return answer(
            "dataset_unavailable", f"the dataset cannot be read: {error.reason}", headers={"Retry-After": "60"}
        )

    @app.errorhandler(OperationalError)
    @app.errorhandler(InterfaceError)
    @app.errorhandler(InternalError)
    @app.errorhandler(PoolTimeout)
    def _(error: Exception) -> Response:
        _log.error("database unavailable", error=str(getattr(error, "orig", error)))
        if is_disk_full(error):
            return answer("storage_full", "the disk of the database is full; nothing was stored")
        return answer("database_unavailable", "the database is not responding", headers={"Retry-After": "5"})

    @app.errorhandler(ParseException)
    def _(error: ParseException) -> Response:
        return answer("bad_request", "the chunked body is malformed", headers={"Connection": "close"})

    @app.errorhandler(HTTPException)
    def _(error: HTTPException) -> Response:
        status = error.code or 500
        if status < 400:  # a redirect
            return Response(status=status, headers=dict(error.get_headers()))
        code = _BY_STATUS.get(status, "internal" if status >= 500 else "bad_request")
        allow = {name: value for name, value in error.get_headers() if name in ("Allow", "Retry-After")}
        details = {
            "not_found": f"there is no page or endpoint {request.path[:200]}",
            "method_not_allowed": f"{request.method} is not allowed here; use {allow.get('Allow', 'another address')}",
            "body_too_large": f"the body is larger than {(request.max_content_length or 0) // 1024:,} KiB",
        }
        detail = details.get(code, HTTPStatus(status).phrase)
        return answer(code, detail, headers=allow, status=status)

    @app.errorhandler(Exception)
    def _(error: Exception) -> Response:
        _log.exception("request failed", path=request.path, exc_info=error)
        return answer("internal", "an unexpected error; the service's log has the details under this request_id")
