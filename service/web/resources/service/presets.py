"""Presets, and the JSON Schema of specs."""

from __future__ import annotations

from typing import Final

from flask import Blueprint, Response

from service.spec.presets.info import PRESET_INFO
from service.web.http.endpoint import endpoint
from service.web.http.responses import as_json
from service.web.openapi import builder
from service.web.schemas.service import PresetItem, PresetList

blueprint: Final = Blueprint("presets", __name__)

TAG: Final = "Service"


@blueprint.get("/presets")
@endpoint(TAG, PresetList)
def show_list() -> PresetList:
    """List the presets with a summary, measured results and the full spec."""
    data = [PresetItem.of(kind, name, info) for kind, presets in PRESET_INFO.items() for name, info in presets.items()]
    return PresetList(data=data)


@blueprint.get("/schema.json")
@endpoint(TAG, "application/schema+json")
def schema() -> Response:
    """Return the JSON Schema of specs. The preset fills in omitted fields."""
    return as_json(builder.spec_schema(), headers={"Content-Type": "application/schema+json"})
