"""Curves and confusion matrix, drawn when somebody asks."""

from __future__ import annotations

from typing import Final, cast

from flask import Blueprint, Response

from service.jobs.queries import lookup
from service.web.endpoints import endpoint
from service.web.files import downloads
from service.web.files.drawings import Format, Plot
from service.web.middleware.problems import Problem
from service.web.schemas.queries import PictureQuery
from service.web.services import owner, services

blueprint: Final = Blueprint("plots", __name__)

TAG: Final = "Files"
_MEDIA: Final = {"png": "image/png", "svg": "image/svg+xml"}


@blueprint.get("/jobs/<job_id>/plots/<which>.<form>")
@endpoint(
    TAG,
    "image/png",
    other_media=downloads.AS_OCTETS,
    query=PictureQuery,
    headers=("If-None-Match",),
    also={304: "The client has it."},
    problems=("job_not_found", "not_yet"),
)
def plot(job_id: str, which: str, form: str) -> Response:
    """Draw a plot: `curves` or `confusion`, as `.png` or `.svg`."""
    with services().database.read() as session:
        job = lookup.get(session, job_id, owner=owner())
    if which not in ("curves", "confusion") or form not in _MEDIA:
        raise Problem("not_found", "there is no such plot; available: curves and confusion, as .png or .svg")
    return downloads.send_picture(services().drawings.plot(job, cast(Plot, which), cast(Format, form)), _MEDIA[form])
