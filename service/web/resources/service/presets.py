"""What a form for specs is made of: named starting points, and the schema of a spec."""

from __future__ import annotations

from dataclasses import asdict
from typing import Final

from flask import Blueprint, Response

from service.spec import validation
from service.spec.presets.definitions import DEFAULT_PRESET
from service.spec.presets.info import PRESET_INFO
from service.web.answers import as_json
from service.web.openapi import builder
from service.web.openapi.operations import documented
from service.web.schemas import queries
from service.web.schemas.queries import NoQuery
from service.web.schemas.representations import PresetItem, PresetList, ReachedItem

blueprint: Final = Blueprint("presets", __name__)

TAG: Final = "Service"


@blueprint.get("/presets")
@documented(TAG, PresetList)
def show_list() -> Response:
    """List the presets with a summary, measured results and the full spec."""
    queries.read_query(NoQuery)
    data = [
        PresetItem(
            kind=kind,
            name=name,
            is_default=name == DEFAULT_PRESET[kind],
            summary=info.summary,
            reaches=[ReachedItem(**asdict(reached)) for reached in info.reaches],
            spec=validation.resolve({"kind": kind, "preset": name}).model_dump(mode="json"),
        )
        for kind, presets in PRESET_INFO.items()
        for name, info in presets.items()
    ]
    return as_json(PresetList(data=data))


@blueprint.get("/schema.json")
@documented(TAG, "application/schema+json")
def schema() -> Response:
    """Return the JSON Schema of specs. Fields that are left out have the preset's values."""
    queries.read_query(NoQuery)
    return as_json(builder.spec_schema(), headers={"Content-Type": "application/schema+json"})
