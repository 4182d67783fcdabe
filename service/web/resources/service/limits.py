"""Limits and quotas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, get_args

from flask import Blueprint

from service.datasets import importer
from service.spec import schema, validation
from service.spec.presets.definitions import DEFAULT_PRESET, PRESETS
from service.web import requests
from service.web.endpoints import endpoint
from service.web.files import uploads
from service.web.schemas.service import Limits, OwnerLimits
from service.web.services import owner, services

blueprint: Final = Blueprint("limits", __name__)

TAG: Final = "Service"


@blueprint.get("/limits")
@endpoint(TAG, Limits)
def limits() -> Limits:
    """Show the limits of specs and uploads, the names that are valid in specs, and the owner's quotas."""
    here = services()
    datasets = [info.name for info in here.repository.catalogue(owner()) if info.problem is None]
    return _limits(OwnerLimits.of(here.settings.quotas) if here.settings.keys_required else None, datasets)


def _limits(owner_limits: OwnerLimits | None, datasets: Sequence[str]) -> Limits:
    """The limits, each from the constant or field that enforces it."""
    return Limits(
        owner=owner_limits,
        max_body_bytes=requests.MAX_BODY_BYTES,
        max_upload_bytes=uploads.MAX_UPLOAD_BYTES,
        max_unpacked_bytes=importer.MAX_UNPACKED_BYTES,
        max_image_side=importer.MAX_SIDE,
        max_images=importer.MAX_PICTURES,
        max_label=importer.MAX_LABEL,
        max_json_depth=validation.MAX_DEPTH,
        max_layers=schema.MAX_LAYERS,
        max_units=schema.MAX_UNITS,
        max_filters=schema.MAX_FILTERS,
        max_kernel=schema.MAX_KERNEL,
        max_outputs=schema.MAX_OUTPUTS,
        max_parameters=schema.MAX_PARAMETERS,
        max_memory_bytes=schema.MAX_MEMORY_BYTES,
        max_operations=schema.MAX_OPERATIONS,
        max_shown_pixels=schema.MAX_SHOWN_PIXELS,
        max_epochs=schema.MAX_EPOCHS,
        max_batch_size=schema.MAX_BATCH,
        max_samples=_bound(schema.Sampling, "count", "le"),
        max_tags=_bound(schema.Common, "tags", "max_length"),
        priorities=[_bound(schema.Common, "priority", "ge"), _bound(schema.Common, "priority", "le")],
        kinds=list(schema.Kind),
        presets={kind: list(presets) for kind, presets in PRESETS.items()},
        default_presets=dict(DEFAULT_PRESET.items()),
        layers=_names(schema.Layer, "type"),
        activations=list(schema.Activation),
        losses=list(schema.LossName),
        optimizers=_names(schema.Optimizer),
        schedules=_names(schema.Schedule),
        initializers=_names(schema.Initializer),
        datasets=list(datasets),
    )


def _bound(model: type[schema.Part], field: str, name: str) -> int:
    """A field's limit, from the model that enforces it."""
    found = [getattr(item, name) for item in model.model_fields[field].metadata if hasattr(item, name)]
    return int(found[0])


def _names(union: Any, field: str = "name") -> list[str]:
    """The names of a union's variants: the values of the discriminator ``field``."""
    members = [getattr(member, "__origin__", member) for member in get_args(get_args(union)[0])]  # without tags
    return [get_args(member.model_fields[field].annotation)[0] for member in members]
