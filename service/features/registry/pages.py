"""The pages of the model registry, and what it adds to those of jobs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote

from flask import Blueprint, Response
from pydantic import Field
from sqlalchemy.orm import Session

from service.access.owners import display_names
from service.declarations import Entries
from service.features.registry import queries
from service.features.registry.gates import forms, gate_text
from service.features.registry.operations import ModelListQuery, PageQuery, alias_item, model_items, version_items
from service.features.registry.operations import show_list as list_models
from service.features.registry.schemas import MoveItem
from service.features.registry.tables import Model, ModelAlias
from service.storage.artifacts import EXPORTS
from service.web.core.core import core, owner
from service.web.core.rooms import JobPart, Pages
from service.web.gate.access_checks import identity
from service.web.http.endpoint import endpoint
from service.web.http.queries import Text
from service.web.http.responses import as_page, next_address, see_other

blueprint: Final = Blueprint("model_pages", __name__)

TAG: Final = "Pages"
_NO_MOVE: Final = 10**9
"""Above the number of any move."""
_SHOWN_MOVES: Final = 20
"""Moves of each alias on a page."""


class ModelPageQuery(PageQuery):
    """Which versions, and which moves of an alias, the page of a model shows."""

    alias: Text | None = Field(None, description="Whose history to show.")
    moves_before: int = Field(_NO_MOVE, ge=1, le=_NO_MOVE, description="With `alias`: only moves before this number.")


@blueprint.get("/ui/models")
@endpoint(TAG, "text/html", query=ModelListQuery, problems=("invalid_cursor", "owner_not_found"))
def show_list(query: ModelListQuery) -> Response:
    """Show the registered models."""
    page = list_models.read(query)
    return as_page(
        "registry/index.html", models=page.data, of_owner=query.owner, next_address=next_address(page.next_cursor)
    )


@blueprint.get("/ui/models/<model_name>")
@endpoint(TAG, "text/html", query=ModelPageQuery, problems=("model_not_found", "owner_not_found"))
def show(model_name: str, query: ModelPageQuery) -> Response:
    """Show the page of a model: aliases with gates and history, and versions. A reference leads to its version."""
    with core().database.read() as session:
        if queries.Reference.parse(model_name) is not None:
            model, version = queries.resolve(session, model_name, owner=owner())
            of_owner = f"?owner={quote(query.owner, safe='')}" if query.owner else ""
            return see_other(f"/ui/models/{model.name}{of_owner}#v{version.version}")
        model = queries.find(session, model_name, owner=owner())
        values = _values(session, model, query)
    return as_page("registry/model.html", **values)


def _values(session: Session, model: Model, query: ModelPageQuery) -> dict[str, Any]:
    rows, following = queries.versions(session, model, limit=query.limit, before=query.before)
    return {
        "model": model_items(session, [model])[0],
        "versions": version_items(session, model, rows),
        "next_address": next_address(str(following) if following else None),
        "opened": query.alias,
        "of_owner": query.owner,
        "gate_text": gate_text,
        "gate_forms": forms(),
        "exports": EXPORTS,
        "has_keys": identity() is not None,
        **_aliases(session, model, query),
    }


def _aliases(session: Session, model: Model, query: ModelPageQuery) -> dict[str, Any]:
    rows = queries.aliases(session, [model.id])
    histories = {row.alias: _history(session, model, row, query) for row in rows}
    people = {move["owner"] for moves, _ in histories.values() for move in moves if move["owner"]}
    aliases = [alias_item(session, model, row.alias) for row in rows]
    return {"aliases": aliases, "histories": histories, "names": display_names(session, people)}


def _history(
    session: Session, model: Model, row: ModelAlias, query: ModelPageQuery
) -> tuple[Sequence[dict[str, Any]], int | None]:
    """The moves of an alias, the newest first, and the number before which there are more."""
    before = query.moves_before if query.alias == row.alias else None
    moves, following = queries.moves(session, model, row.alias, limit=_SHOWN_MOVES, before=before)
    return [MoveItem.from_row(move).model_dump(mode="json") for move in moves], following


PAGES: Final = Pages(
    blueprint=blueprint,
    navigation=Entries("/ui/sweeps", {"/ui/models": "Models"}),
    of_job=JobPart(template="registry/job.html", read=lambda session, job: queries.registrations(session, job.id)),
)
