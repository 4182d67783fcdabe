"""The model registry: versions of models, aliases with gates and history."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence
from typing import Any, Final

from flask import Blueprint, Response, request
from pydantic import Field
from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from service import kinds
from service.access.keys import Scope
from service.errors import Fault, SpecError
from service.features.registry import inference, queries
from service.features.registry.gates import GatesRequest, examples
from service.features.registry.registry import (
    ApprovalRequest,
    Moved,
    MoveRequest,
    Registry,
    RollbackRequest,
    VersionRequest,
)
from service.features.registry.schemas import (
    AliasItem,
    AliasList,
    ModelItem,
    ModelList,
    MoveAnswer,
    MoveItem,
    MoveList,
    VersionItem,
    VersionList,
)
from service.features.registry.tables import Model, ModelAlias, ModelVersion
from service.spec import validation
from service.spec.metric_info import TEST_SCORES
from service.storage.tables import Epoch, Job
from service.web.core.core import Core, core, owner, provided
from service.web.core.rooms import Operations
from service.web.gate.access_checks import actor, named_owner, sees_all
from service.web.http.endpoint import Result, Tag, endpoint
from service.web.http.path_parameters import PathParameter
from service.web.http.problems import Problem
from service.web.http.queries import Cursor, NumberCursor, OtherOwner, Query
from service.web.http.responses import as_json, etag_of, not_modified, see_other
from service.wording import listed

blueprint: Final = Blueprint("models", __name__)
blueprint.register_blueprint(inference.blueprint)

TAG: Final = Tag("Models", "Named models: numbered versions, and aliases that move under gates.", after="Experiments")
MODEL_NAME: Final = PathParameter("model_name", "The name of a model.", "digits")
VERSION: Final = PathParameter("version", "The number of a version.", "3")
ALIAS: Final = PathParameter("alias", "An alias of a model, such as `champion`.", "champion", sign="@")
_NOT_FOUND: Final = ("model_not_found", "owner_not_found")
_MOVING: Final = (*_NOT_FOUND, "precondition_failed")
_IF_MATCH: Final = ("If-Match", "If-None-Match")
_HIGHEST_SEQ: Final = 2**31


class OwnerQuery(Query):
    """Whose model it is."""

    owner: OtherOwner = None


class ModelListQuery(OwnerQuery):
    """Which models to list."""

    limit: int = Field(20, ge=1, le=100)
    cursor: Cursor = None


class PageQuery(OwnerQuery):
    """Which part of a list."""

    limit: int = Field(20, ge=1, le=100)
    cursor: NumberCursor = None

    @property
    def before(self) -> int | None:
        """The number before which the page begins."""
        return int(self.cursor) if self.cursor is not None else None


class MoveQuery(OwnerQuery):
    """How to process a move."""

    dry_run: bool = Field(False, description="Check the gates and show their evidence; move nothing.")


@blueprint.get("/models", endpoint="show_list")
@endpoint(TAG, ModelList, query=ModelListQuery, problems=("invalid_cursor", "owner_not_found"), page="/ui/models")
def show_list(query: ModelListQuery) -> ModelList:
    """List models by name."""
    with core().database.read() as session:
        whose = owner() if core().settings.keys_required else None
        rows, next_cursor = queries.models(session, owner=whose, limit=query.limit, cursor=query.cursor)
        return ModelList(data=model_items(session, rows), has_more=next_cursor is not None, next_cursor=next_cursor)


@blueprint.get("/models/<model_name>", endpoint="show")
@endpoint(
    TAG,
    ModelItem,
    query=OwnerQuery,
    problems=_NOT_FOUND,
    other_responses={303: "To the version that a reference (`digits@champion`, `digits:3`) means now."},
    page="/ui/models/{model_name}",
)
def show(model_name: str) -> Result:
    """Show a model. A reference, such as `digits@champion`, leads to its version."""
    with core().database.read() as session:
        if queries.Reference.parse(model_name) is not None:
            model, version = queries.resolve(session, model_name, owner=owner())
            return see_other(f"/models/{model.name}/versions/{version.version}")
        return model_items(session, [queries.find(session, model_name, owner=owner())])[0]


@blueprint.delete("/models/<model_name>")
@endpoint(TAG, None, status=204, query=OwnerQuery, problems=(*_NOT_FOUND, "version_in_use"), client="Model.delete")
def delete(model_name: str, query: OwnerQuery) -> None:
    """Delete a model with its versions and history; its jobs stay.

    Remove its aliases and clear their gates first.
    """
    provided(Registry).delete(model_name, owner=_whose(query), by=actor())


@blueprint.post("/models/<model_name>/versions")
@endpoint(
    TAG,
    VersionItem,
    status=201,
    body=VersionRequest,
    query=OwnerQuery,
    other_responses={200: VersionItem},
    problems=("job_not_found", "artifact_not_found", "owner_not_found"),
)
def register(model_name: str, query: OwnerQuery, body: VersionRequest) -> Response:
    """Register a checkpoint of a job as the next version of a model, which is created with its first one.

    Versions never change. A checkpoint with the same bytes is the same version: the response is then 200. Job and
    checkpoint are kept as long as the version.
    """
    model, row, is_new = provided(Registry).register(model_name, body, owner=_whose(query), by=actor())
    with core().database.read() as session:
        item = version_items(session, model, [row])[0]
    return as_json(item, 201 if is_new else 200, headers={"Location": item.urls["self"]})


@blueprint.get("/models/<model_name>/versions", endpoint="show_versions")
@endpoint(TAG, VersionList, query=PageQuery, problems=_NOT_FOUND)
def show_versions(model_name: str, query: PageQuery) -> VersionList:
    """List the versions of a model, the newest first."""
    with core().database.read() as session:
        model = queries.find(session, model_name, owner=owner())
        rows, following = queries.versions(session, model, limit=query.limit, before=query.before)
        data = version_items(session, model, rows)
    return VersionList(data=data, has_more=following is not None, next_cursor=str(following) if following else None)


@blueprint.get("/models/<model_name>/versions/<int:version>", endpoint="show_version")
@endpoint(TAG, VersionItem, query=OwnerQuery, problems=_NOT_FOUND, page="/ui/models/{model_name}")
def show_version(model_name: str, version: int) -> VersionItem:
    """Show a version of a model."""
    with core().database.read() as session:
        model = queries.find(session, model_name, owner=owner())
        return version_items(session, model, [queries.version(session, model, version)])[0]


@blueprint.delete("/models/<model_name>/versions/<int:version>")
@endpoint(
    TAG, None, status=204, query=OwnerQuery, problems=(*_NOT_FOUND, "version_in_use"), client="Model.delete_version"
)
def delete_version(model_name: str, version: int, query: OwnerQuery) -> None:
    """Delete a version that no alias holds; its job stays, and can be deleted then. The number is not used again."""
    provided(Registry).delete_version(model_name, version, owner=_whose(query), by=actor())


@blueprint.post("/models/<model_name>/versions/<int:version>/approvals")
@endpoint(
    TAG,
    VersionItem,
    status=201,
    body=ApprovalRequest,
    query=OwnerQuery,
    problems=(*_NOT_FOUND, "not_approvable"),
    client="Model.approve",
    is_repeatable=True,
)
def approve(model_name: str, version: int, query: OwnerQuery, body: ApprovalRequest) -> Result:
    """Approve a version, with another key than the one that registered it: of the same owner, or of an admin."""
    whose = _whose(query)
    provided(Registry).approve(model_name, version, body, owner=whose, by=actor())
    with core().database.read() as session:
        model = queries.find(session, model_name, owner=whose)
        item = version_items(session, model, [queries.version(session, model, version)])[0]
    return item, {"Location": item.urls["self"]}


@blueprint.get("/models/<model_name>/aliases", endpoint="show_aliases")
@endpoint(TAG, AliasList, query=OwnerQuery, problems=_NOT_FOUND, client="Model.aliases")
def show_aliases(model_name: str) -> AliasList:
    """List the aliases of a model, those that only have gates or a history included."""
    with core().database.read() as session:
        model = queries.find(session, model_name, owner=owner())
        rows = queries.aliases(session, [model.id])
        return AliasList(data=[alias_item(session, model, row.alias) for row in rows])


@blueprint.get("/models/<model_name>/aliases/<alias>", endpoint="show_alias")
@endpoint(
    TAG,
    AliasItem,
    query=OwnerQuery,
    headers=("If-None-Match",),
    other_responses={304: "The alias has not been moved."},
    problems=_NOT_FOUND,
    client="Model.alias",
)
def show_alias(model_name: str, alias: str) -> Response:
    """Show an alias. Its `ETag` changes with each move, for `If-Match`."""
    with core().database.read() as session:
        queries.alias(session, queries.find(session, model_name, owner=owner()), alias)
    response = _alias_response(model_name, alias, owner())
    tag = response.get_etag()[0] or ""
    headers = {name: response.headers[name] for name in ("ETag", "Cache-Control")}
    return not_modified(headers) if request.if_none_match.contains_weak(tag) else response


@blueprint.put("/models/<model_name>/aliases/<alias>")
@endpoint(
    TAG,
    MoveAnswer,
    body=MoveRequest,
    query=MoveQuery,
    headers=_IF_MATCH,
    problems=(*_MOVING, "gate_failed", "scope_missing"),
)
def move(model_name: str, alias: str, query: MoveQuery, body: MoveRequest) -> Response:
    """Move an alias to a version.

    The version must meet the gates of the alias. If it does not, the problem `gate_failed` has the evidence of each
    gate, and the requests that supply what it needs. With `dry_run=true` the response has this evidence, and
    nothing is moved. An admin may `force` a move, with a `reason`. With `If-Match`, the alias is moved only if nobody
    else has moved it since; with `If-None-Match: *`, only if it was never moved.
    """
    whose, registry = _whose(query), provided(Registry)
    if body.force and not sees_all():
        raise Problem("scope_missing", "`force` needs a key with the scope admin", needed=Scope.ADMIN)
    if query.dry_run:
        return _move_response(model_name, alias, registry.try_out(model_name, alias, body, owner=whose), whose)
    moved = registry.move(model_name, alias, body, seen=_seen(), owner=whose, by=actor())
    return _move_response(model_name, alias, moved, whose)


@blueprint.delete("/models/<model_name>/aliases/<alias>")
@endpoint(TAG, None, status=204, query=OwnerQuery, headers=("If-Match",), problems=_MOVING)
def remove_alias(model_name: str, alias: str, query: OwnerQuery) -> None:
    """Let an alias hold no version. Its gates and its history stay."""
    provided(Registry).remove_alias(model_name, alias, seen=_seen(), owner=_whose(query), by=actor())


@blueprint.post("/models/<model_name>/aliases/<alias>/rollback")
@endpoint(
    TAG,
    AliasItem,
    body=RollbackRequest,
    query=OwnerQuery,
    headers=("If-Match",),
    problems=(*_MOVING, "no_earlier_version"),
)
def roll_back(model_name: str, alias: str, query: OwnerQuery, body: RollbackRequest) -> Response:
    """Move an alias back to the version that it held before; another rollback goes further back.

    The gates are not checked again: evidence and `forced` are those of the move that is restored.
    """
    whose = _whose(query)
    provided(Registry).roll_back(model_name, alias, body, seen=_seen(), owner=whose, by=actor())
    return _alias_response(model_name, alias, whose)


@blueprint.put("/models/<model_name>/aliases/<alias>/gates")
@endpoint(
    TAG,
    AliasItem,
    scope=Scope.ADMIN,
    document=GatesRequest,
    query=OwnerQuery,
    problems=_NOT_FOUND,
    client="Model.set_gates",
)
def change_gates(model_name: str, alias: str, query: OwnerQuery, document: Any) -> Response:
    """Set what a version must meet before an alias moves to it.

    The body is `{"gates": [...]}`, or the list alone. Requires the scope `admin`. A gate is one of EXAMPLES. The
    version that the alias holds now is not checked.
    """
    gates = _read_gates(document)
    whose = _whose(query)
    provided(Registry).change_gates(model_name, alias, gates.gates, owner=whose, by=actor())
    return _alias_response(model_name, alias, whose)


_EXAMPLES: Final = listed(examples(is_markdown=True, with_defaults=True))
change_gates.__doc__ = inspect.cleandoc(change_gates.read.__doc__ or "").replace("EXAMPLES", _EXAMPLES)


@blueprint.get("/models/<model_name>/aliases/<alias>/history", endpoint="show_history")
@endpoint(TAG, MoveList, query=PageQuery, problems=_NOT_FOUND)
def show_history(model_name: str, alias: str, query: PageQuery) -> MoveList:
    """List the moves of an alias, the newest first: who moved it when, why, and what the gates found then.

    Moves are numbered without gaps, and never deleted or changed as long as the model exists.
    """
    with core().database.read() as session:
        model = queries.find(session, model_name, owner=owner())
        queries.alias(session, model, alias)
        rows, following = queries.moves(session, model, alias, limit=query.limit, before=query.before)
    data = [MoveItem.from_row(row) for row in rows]
    return MoveList(data=data, has_more=following is not None, next_cursor=str(following) if following else None)


def _whose(query: OwnerQuery) -> str | None:
    """The owner of the model that a request changes: the caller, or whom an admin names."""
    if query.owner is None:
        return owner()
    if not sees_all():
        raise Problem("scope_missing", "`owner` needs a key with the scope admin", needed=Scope.ADMIN)
    return named_owner(query.owner)


def _seen() -> Collection[int] | None:
    """The moves after one of which the client expects the alias; ``None``: any."""
    if request.if_none_match.star_tag:
        return {0}
    if request.if_match.star_tag:
        return range(1, _HIGHEST_SEQ)
    if not request.if_match:
        return None
    numbers = [(tag or "").partition("-")[0] for tag in request.if_match.as_set()]  # an empty tag is None
    return {int(number) for number in numbers if number.isascii() and number.isdigit() and len(number) < 10}


def _read_gates(document: Any) -> GatesRequest:
    if not isinstance(document, list):
        return validation.read_body(GatesRequest, document)
    try:
        return validation.read_body(GatesRequest, {"gates": document})
    except SpecError as error:
        faults = [_in_list(fault) for fault in error.faults]
        raise SpecError(faults, total=error.total) from error


def _in_list(fault: Fault) -> Fault:
    pointer = "#" + fault.pointer.removeprefix("#/gates")
    return Fault(pointer=pointer, detail=fault.detail, code=fault.code, suggestion=fault.suggestion)


def _alias_response(model_name: str, alias: str, whose: str | None) -> Response:
    with core().database.read() as session:
        item = alias_item(session, queries.find(session, model_name, owner=whose), alias)
    return as_json(item, headers=_etag(item))


def _move_response(name: str, alias: str, moved: Moved, whose: str | None) -> Response:
    with core().database.read() as session:
        item = alias_item(session, queries.find(session, name, owner=whose), alias)
    return as_json(MoveAnswer.after(item, moved.findings, moved=moved.moved), headers=_etag(item))


def _etag(item: AliasItem) -> dict[str, str]:
    """The headers of a cached response: the tag is the number of the last move, and changes with the gates, too."""
    gates = f"-{etag_of(item)[:8]}" if item.gates else ""
    return {"ETag": f'"{item.seq}{gates}"', "Cache-Control": "private, no-cache"}


def alias_item(session: Session, model: Model, alias: str) -> AliasItem:
    """The response for an alias, or for a name that could be one."""
    row = session.get(ModelAlias, (model.id, alias)) or ModelAlias(alias=alias, version=None, seq=0, gates=[])
    return AliasItem.of(model, row, queries.move(session, model.id, alias, row.seq))


def model_items(session: Session, rows: Sequence[Model]) -> list[ModelItem]:
    """The responses for models, read with the same number of queries for any number of them."""
    ids = [row.id for row in rows]
    counts, newest = queries.version_counts(session, ids), queries.newest(session, ids)
    aliases, metrics = queries.aliases(session, ids), _metrics(session, [*newest.values()])
    return [
        ModelItem.of(
            row,
            counts.get(row.id, 0),
            version := newest.get(row.id),
            aliases,
            metrics[row.id, version.version] if version is not None else {},
        )
        for row in rows
    ]


def version_items(session: Session, model: Model, rows: Sequence[ModelVersion]) -> list[VersionItem]:
    """The responses for versions of a model, likewise."""
    numbers = [row.version for row in rows]
    approvals = queries.approvals(session, model.id, numbers)
    aliases = queries.aliases(session, [model.id])
    metrics = _metrics(session, rows)
    return [
        VersionItem.of(
            model,
            row,
            aliases=[alias.alias for alias in aliases if alias.version == row.version],
            approvals=[approval for approval in approvals if approval.version == row.version],
            metrics=metrics[model.id, row.version],
        )
        for row in rows
    ]


def _metrics(session: Session, rows: Sequence[ModelVersion]) -> dict[tuple[str, int], dict[str, Any]]:
    """The key metrics of the epochs of versions, with the scores on the test part of those that were scored; by model
    and number."""
    keys = tuple_(Epoch.job_id, Epoch.epoch).in_([(row.job_id, row.epoch) for row in rows])
    query = select(Epoch.job_id, Epoch.epoch, Epoch.metrics).where(keys)
    found = {(row.job_id, row.epoch): row.metrics for row in session.execute(query)}
    jobs = select(Job.id, Job.test_scores).where(Job.id.in_([row.job_id for row in rows]))
    tested = {row.id: row.test_scores for row in session.execute(jobs)}
    metrics = {}
    for row in rows:
        measured, scores = found.get((row.job_id, row.epoch), {}), tested.get(row.job_id) or {}
        own = {name: measured[name] for name in kinds.of(row.kind).key_metrics if name in measured}
        if scores.get("test_epoch") == row.epoch:
            own |= {name: scores[name] for name in TEST_SCORES if name in scores}
        metrics[row.model_id, row.version] = own
    return metrics


def _registry_of(core: Core) -> tuple[Registry]:
    return (Registry(database=core.database, artifacts=core.artifacts),)


OPERATIONS: Final = Operations(blueprint=blueprint, provide=_registry_of)
