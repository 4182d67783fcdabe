"""Limits and quotas."""

from __future__ import annotations

from typing import Final

from flask import Blueprint

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
    app_services = services()
    datasets = [info.name for info in app_services.repository.catalogue(owner()) if info.problem is None]
    return Limits.of(
        OwnerLimits.of(app_services.settings.quotas) if app_services.settings.keys_required else None,
        datasets,
        max_body_bytes=requests.MAX_BODY_BYTES,
        max_upload_bytes=uploads.MAX_UPLOAD_BYTES,
    )
