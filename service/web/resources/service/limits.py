"""Limits and quotas."""

from __future__ import annotations

from typing import Final

from flask import Blueprint

from service.web.core.core import core, owner
from service.web.files import uploads
from service.web.http import requests
from service.web.http.endpoint import endpoint
from service.web.schemas.service import Limits, OwnerLimits

blueprint: Final = Blueprint("limits", __name__)

TAG: Final = "Service"


@blueprint.get("/limits")
@endpoint(TAG, Limits)
def limits() -> Limits:
    """Show the limits of specs and uploads, the names that are valid in specs, and the owner's quotas."""
    datasets = [info.name for info in core().repository.catalogue(owner()) if info.problem is None]
    return Limits.of(
        OwnerLimits.of(core().settings.quotas) if core().settings.keys_required else None,
        datasets,
        max_body_bytes=requests.MAX_BODY_BYTES,
        max_upload_bytes=uploads.MAX_UPLOAD_BYTES,
    )
