"""Limits and quotas."""

from __future__ import annotations

from typing import Any, Final, get_args

from flask import Blueprint, Response

from service.contract import spec, validation
from service.contract.presets import DEFAULT_PRESET, PRESETS
from service.datasets import intake
from service.web import queries, receiving
from service.web.answers import as_json
from service.web.operations import documented
from service.web.queries import NoQuery
from service.web.representations import Limits, OwnerLimits
from service.web.services import owner, services

blueprint: Final = Blueprint("limits", __name__)

TAG: Final = "Service"


@blueprint.get("/limits")
@documented(TAG, Limits)
def limits() -> Response:
    """Show the limits of specs and uploads, the names that are valid in specs, and the owner's quotas."""
    queries.read_query(NoQuery)
    return as_json(
        Limits(
            owner=_of_owner(),
            max_body_bytes=queries.MAX_BODY_BYTES,
            max_upload_bytes=receiving.MAX_UPLOAD_BYTES,
            max_unpacked_bytes=intake.MAX_UNPACKED_BYTES,
            max_image_side=intake.MAX_SIDE,
            max_images=intake.MAX_PICTURES,
            max_label=intake.MAX_LABEL,
            max_json_depth=validation.MAX_DEPTH,
            max_layers=spec.MAX_LAYERS,
            max_units=spec.MAX_UNITS,
            max_filters=spec.MAX_FILTERS,
            max_kernel=spec.MAX_KERNEL,
            max_outputs=spec.MAX_OUTPUTS,
            max_parameters=spec.MAX_PARAMETERS,
            max_memory_bytes=spec.MAX_MEMORY_BYTES,
            max_operations=spec.MAX_OPERATIONS,
            max_shown_pixels=spec.MAX_SHOWN_PIXELS,
            max_epochs=spec.MAX_EPOCHS,
            max_batch_size=spec.MAX_BATCH,
            max_samples=_bound(spec.Sampling, "count", "le"),
            max_tags=_bound(spec.Common, "tags", "max_length"),
            priorities=[_bound(spec.Common, "priority", "ge"), _bound(spec.Common, "priority", "le")],
            kinds=list(spec.Kind),
            presets={kind: list(presets) for kind, presets in PRESETS.items()},
            default_presets=dict(DEFAULT_PRESET.items()),
            layers=_names(spec.Layer, "type"),
            activations=list(spec.Activation),
            losses=list(spec.LossName),
            optimizers=_names(spec.Optimizer),
            schedules=_names(spec.Schedule),
            initializers=_names(spec.Initializer),
            datasets=[info.name for info in services().shelf.catalogue(owner()) if info.problem is None],
        )
    )


def _of_owner() -> OwnerLimits | None:
    here = services()
    if not here.settings.keys_required:
        return None
    quotas = here.settings.quotas
    return OwnerLimits(
        requests_per_minute=quotas.requests or None,
        queued_jobs=quotas.queued or None,
        running_jobs=quotas.running or None,
        upload_bytes_per_day=quotas.uploads or None,
        dataset_bytes=quotas.datasets or None,
        streams=quotas.streams or None,
    )


def _bound(model: type[spec.Part], field: str, name: str) -> int:
    """A field's limit, from the model that checks it: one truth."""
    found = [getattr(item, name) for item in model.model_fields[field].metadata if hasattr(item, name)]
    return int(found[0])


def _names(union: Any, field: str = "name") -> list[str]:
    """The names of a union's variants, which ``field`` tells."""
    members = [getattr(member, "__origin__", member) for member in get_args(get_args(union)[0])]  # without tags
    return [get_args(member.model_fields[field].annotation)[0] for member in members]
