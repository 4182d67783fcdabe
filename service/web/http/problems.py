"""All errors that a client can see, as problem documents (RFC 9457). ``browsers`` renders them as pages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import structlog
from flask import Flask, Response, g, request
from gunicorn.http.errors import ParseException
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException

from service.datasets.errors import DatasetBroken, DatasetError, DatasetUnavailable
from service.datasets.importer import UploadRefused
from service.errors import Fault, KeyNotFound, ServiceError, SpecError, StorageQuotaExceeded
from service.runtime import tracing
from service.spec.faults import MAX_FAULTS
from service.storage.artifacts import ArtifactDamaged, ArtifactUnreadable
from service.storage.database import DatabaseDamaged, is_disk_full
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


class Problem(ServiceError):
    """Ends a request with one of ``KINDS``."""

    def __init__(self, code: str, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any) -> None:
        super().__init__(detail)
        self.code, self.detail, self.headers, self.members = code, detail, dict(headers or {}), members


def respond(
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
        **tracing.named(g.get("traceparent")),
        **members,
    }
    response = Response(
        json.dumps(document, ensure_ascii=False) + "\n", status or kind.status, content_type="application/problem+json"
    )
    if "retry_after_s" in members:
        response.headers["Retry-After"] = str(members["retry_after_s"])
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
    return respond("invalid_spec", detail, errors=faults, error_count=error.total, **members)


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


def register(app: Flask) -> None:
    """Convert every exception that leaves a view to a problem."""

    @app.errorhandler(ServiceError)
    @app.errorhandler(DatasetError)
    def _(error: ServiceError | DatasetError) -> Response:
        if error.code not in KINDS or error.code == "internal":
            return unexpected(error)
        if error.code == "storage_full":
            _log.error("an upload could not be stored", error=str(error))
        members = error.members if isinstance(error, ServiceError) else {}
        headers = error.headers if isinstance(error, Problem) else {}
        return respond(error.code, str(error)[:1000], headers=headers, **members)

    @app.errorhandler(SpecError)
    def _(error: SpecError) -> Response:
        return invalid_spec(error)

    @app.errorhandler(KeyNotFound)
    def _(error: KeyNotFound) -> Response:
        return respond("key_not_found", f"there is no key {error.id_or_name[:60]!r}")

    @app.errorhandler(UploadRefused)
    def _(error: UploadRefused) -> Response:
        faults = [{"parameter": field, "detail": reason, "code": error.code} for field, reason in error.faults.items()]
        return respond("invalid_upload", str(error)[:1000], errors=faults)

    @app.errorhandler(StorageQuotaExceeded)
    def _(error: StorageQuotaExceeded) -> Response:
        detail = f"{error}; delete jobs, or ask the operator for a higher limit"
        return respond("quota_exceeded", detail, retry_after_s=STORAGE_WAIT_S)

    @app.errorhandler(ArtifactDamaged)
    def _(error: ArtifactDamaged) -> Response:
        _log.error("artifact damaged", path=error.path, reason=error.reason)
        return respond("artifact_damaged", "the file is registered, but cannot be read")

    @app.errorhandler(ArtifactUnreadable)
    def _(error: ArtifactUnreadable) -> Response:
        _log.warning("artifact cannot be read", path=error.path, reason=error.reason)
        return respond("store_unavailable", "the store of files does not respond now", headers={"Retry-After": "10"})

    @app.errorhandler(DatasetUnavailable)
    @app.errorhandler(DatasetBroken)
    def _(error: DatasetUnavailable | DatasetBroken) -> Response:
        _log.warning("dataset cannot be read", error=str(error))
        return respond(
            "dataset_unavailable", f"the dataset cannot be read: {error.reason}", headers={"Retry-After": "60"}
        )

    @app.errorhandler(DatabaseDamaged)
    def _(error: DatabaseDamaged) -> Response:
        _log.error("database damaged", error=str(error))  # the response has no path
        return respond("database_unavailable", "the file of the database is damaged; the service's log has the remedy")

    @app.errorhandler(OperationalError)
    @app.errorhandler(InterfaceError)
    @app.errorhandler(InternalError)
    @app.errorhandler(PoolTimeout)
    def _(error: Exception) -> Response:
        _log.error("database unavailable", error=str(getattr(error, "orig", error)))
        if is_disk_full(error):
            return respond("storage_full", "the disk of the database is full; nothing was stored")
        return respond("database_unavailable", "the database is not responding", headers={"Retry-After": "5"})

    @app.errorhandler(ParseException)
    def _(error: ParseException) -> Response:
        return respond("bad_request", "the chunked body is malformed", headers={"Connection": "close"})

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
        return respond(code, detail, headers=allow, status=status)

    @app.errorhandler(Exception)
    def unexpected(error: Exception) -> Response:
        _log.exception("request failed", path=request.path, exc_info=error)
        return respond("internal", "an unexpected error; the service's log has the details under this request_id")
