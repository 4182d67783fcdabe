"""What a version of a model does, as the job whose checkpoint it is: predictions, images, exports."""

from __future__ import annotations

from typing import Any, Final

from flask import Blueprint, Response, after_this_request

from service.access.keys import Scope
from service.application.models import GenerateRequest, PredictRequest
from service.errors import Fault
from service.features.registry import queries
from service.features.registry.tables import ModelVersion
from service.kinds.kind import Ability
from service.web.core.core import core, owner
from service.web.http import downloads, problems
from service.web.http.endpoint import Result, endpoint
from service.web.http.path_parameters import PathParameter
from service.web.http.queries import Query
from service.web.inference import loading
from service.web.inference.loading import job_of
from service.web.models import exports
from service.web.models import views as inference

blueprint: Final = Blueprint("model_inference", __name__)

REFERENCE: Final = PathParameter(
    "reference", "A version of a model: `digits@champion`, `digits@latest` or `digits:3`.", "digits@champion"
)


@blueprint.post("/models/<reference>/predict")
@endpoint(
    inference.TAG,
    inference.PredictAnswer,
    document=PredictRequest,
    file_media=(downloads.OCTETS, inference.CSV, "text/tab-separated-values"),
    invalid_body="invalid_input",
    problems=("model_not_found", *loading.PROBLEMS, "too_slow", "too_many_uploads"),
    scope=Scope.READ,
    other_media=(inference.CSV,),
    name="inference.predict_by_model",
)
def predict_by_model(reference: str, document: Any) -> Result:
    """Predict with a version of a model, named as `digits@champion` or `digits:3`. The header `Tapeline-Model` has the
    version that was used.

    Body and response are those of `POST /jobs/{job_id}/predict`, without `checkpoint`.
    """
    version = _use_version(reference)
    job = job_of(version.job_id, Ability.PREDICT)
    if document is None:
        return inference.predict_file(job, str(version.epoch))
    return inference.predict_json(job, _at_version(document, version))


@blueprint.post("/models/<reference>/generate")
@endpoint(
    inference.TAG,
    inference.GenerateAnswer,
    document=GenerateRequest,
    invalid_body="invalid_input",
    problems=("model_not_found", *loading.PROBLEMS),
    scope=Scope.READ,
    other_media=("image/png", "image/gif"),
    other_responses={200: "A PNG with `format=grid`, a GIF with `format=film`."},
    name="inference.generate_by_model",
)
def generate_by_model(reference: str, document: Any) -> Result:
    """Generate images with a version of a model, named as `faces@champion` or `faces:3`. The header `Tapeline-Model`
    has the version that was used.

    Body and response are those of `POST /jobs/{job_id}/generate`, without `checkpoint`.
    """
    version = _use_version(reference)
    return inference.generate_json(job_of(version.job_id, Ability.GENERATE), _at_version(document, version))


class ModelExportQuery(Query):
    """Under which license to export."""

    license: exports.License | None = exports.LICENSE


@blueprint.get("/models/<reference>/export/<target>")
@endpoint(
    exports.TAG,
    "application/zip",
    query=ModelExportQuery,
    **downloads.SAVED,
    problems=("model_not_found", *exports.PROBLEMS),
    name="exports.export_by_model",
)
def export_by_model(reference: str, target: str, query: ModelExportQuery) -> Response:
    """Export a version of a model, named as `digits@champion` or `digits:3`, as `GET /jobs/{job_id}/export/{target}`
    does. The header `Tapeline-Model` has the version."""
    version = _use_version(reference)
    return exports.send_export(
        version.job_id, target, exports.ExportQuery(checkpoint=str(version.epoch), license=query.license)
    )


def _use_version(reference: str) -> ModelVersion:
    """The version that a reference means now, of the models that the current request may read. The response will name
    it in ``Tapeline-Model``.

    Raises:
        ModelNotFound: it means none.
    """
    with core().database.read() as session:
        model, version = queries.resolve(session, reference, owner=owner())

    @after_this_request
    def name_version(response: Response) -> Response:
        response.headers["Tapeline-Model"] = f"{model.name}:{version.version}"
        return response

    return version


def _at_version(document: Any, version: ModelVersion) -> Any:
    """The body of a request with the checkpoint of a version.

    Raises:
        Problem: it names a checkpoint itself.
    """
    if not isinstance(document, dict):
        return document
    if "checkpoint" in document:
        detail = "a version of a model is one checkpoint: leave it out, or send the request to the job"
        raise problems.invalid_input([Fault(pointer="#/checkpoint", detail=detail, code="unknown_field")])
    return document | {"checkpoint": version.epoch}
