"""The kinds of problems: status, title and remedy of each code. The documentation lists them all."""

from __future__ import annotations

from typing import Final

from service.declarations import extended, installed
from service.errors import ProblemKind

_OF_KERNEL: Final[dict[str, ProblemKind]] = {
    "bad_request": ProblemKind(400, "The request could not be parsed.", "Send a valid HTTP request."),
    "malformed_json": ProblemKind(
        400,
        "The body is not valid JSON.",
        "`line` and `column` (from 1) locate the error. NaN, Infinity and repeated keys are not valid JSON.",
    ),
    "malformed_form": ProblemKind(
        400, "The body is not a valid form.", "Send complete `multipart/form-data` with its boundary."
    ),
    "invalid_parameter": ProblemKind(
        400, "A parameter is not valid.", "`errors` lists each URL parameter or header with its allowed values."
    ),
    "invalid_cursor": ProblemKind(400, "The cursor is not valid.", "Start the list again without a cursor."),
    "key_required": ProblemKind(
        401, "An API key is required.", "Send a key as `Authorization: Bearer <key>`, or sign in."
    ),
    "scope_missing": ProblemKind(
        403,
        "The key's scope does not allow this.",
        "Use a key with the scope in `needed`: `read`, `submit` or `admin`.",
        "Sign in with a key that allows this, or ask the operator for one.",
        ("Sign in with another key", "/ui/sign-in"),
    ),
    "foreign_origin": ProblemKind(
        403,
        "The request comes from another website.",
        "Browsers may send requests from this service's own pages only. Programs: omit `Origin`, or send a key.",
    ),
    "not_found": ProblemKind(
        404,
        "Page not found.",
        "Check the URL. `detail` says what is missing; `/docs` lists every endpoint.",
        "Check the address, or start from the list of jobs.",
        ("All jobs", "/"),
    ),
    "job_not_found": ProblemKind(
        404,
        "There is no such job.",
        "Check the id. The job may have been deleted, or belong to another owner.",
        link=("All jobs", "/"),
    ),
    "sweep_not_found": ProblemKind(
        404,
        "There is no such sweep.",
        "`GET /sweeps` lists all sweeps that this key may see.",
        "It may have been deleted, or belong to another owner.",
        ("All sweeps", "/ui/sweeps"),
    ),
    "model_not_found": ProblemKind(
        404,
        "There is no such model, version or alias.",
        "`GET /models` lists the models, `GET /models/{name}` the versions and aliases of one.",
        "It may have been deleted, or belong to another owner.",
        ("All models", "/ui/models"),
    ),
    "owner_not_found": ProblemKind(
        404, "There is no such owner.", "`GET /owners` lists all owners.", link=("All owners", "/ui/owners")
    ),
    "worker_not_found": ProblemKind(
        404,
        "There is no such worker.",
        "It stopped, or is gone; `GET /workers` lists those that are alive.",
        link=("All workers", "/ui/workers"),
    ),
    "link_not_usable": ProblemKind(
        410, "The sign-in link cannot be used.", "Ask whoever gave it to you for a new one; each works once."
    ),
    "trial_not_found": ProblemKind(
        404,
        "There is no such trial.",
        "`GET /sweeps/{sweep_id}/trials` lists the trials of a sweep.",
        link=("All sweeps", "/ui/sweeps"),
    ),
    "artifact_not_found": ProblemKind(
        404,
        "There is no such file.",
        "Older checkpoints are deleted as a job continues. `GET /jobs/{job_id}/artifacts` lists the files.",
        "Older checkpoints are deleted as a job continues. The page of the job lists its files.",
        ("All jobs", "/"),
    ),
    "dataset_not_found": ProblemKind(
        404,
        "There is no such dataset.",
        "`GET /datasets` lists the available datasets.",
        "Choose one from the list of datasets, or upload it there.",
        ("All datasets", "/ui/datasets"),
    ),
    "folds_not_found": ProblemKind(
        404, "There is no such cross-validation.", "`fold_group` of a job names its cross-validation."
    ),
    "key_not_found": ProblemKind(404, "There is no such key.", "`GET /keys` lists all keys."),
    "not_yet": ProblemKind(
        404,
        "This does not exist yet.",
        "Try again later. A job's results appear when it has finished an epoch; a dataset's images when a worker has "
        "downloaded it for a job.",
    ),
    "no_verdicts": ProblemKind(
        404,
        "These samples have no predicted classes.",
        "Omit `predicted_labels`. Predicted classes need a dataset with a reference classifier (`mnist`, "
        "`mnist-10k`), and samples created by a version that has one.",
    ),
    "method_not_allowed": ProblemKind(405, "The method is not allowed here.", "`Allow` lists the allowed methods."),
    "too_slow": ProblemKind(408, "The upload took too long.", "Use a faster connection, or send a smaller body."),
    "dataset_exists": ProblemKind(
        409,
        "The name is already used.",
        "Use another name, or delete that dataset first. If it holds exactly this data, `version` names it.",
    ),
    "upload_cancelled": ProblemKind(409, "The upload was cancelled.", "Send it again."),
    "upload_stored": ProblemKind(409, "It is too late to cancel the upload.", "Delete the dataset."),
    "dataset_changed": ProblemKind(
        409,
        "The dataset has changed since the job was trained.",
        "Restore the earlier files, or train a new job on the current ones.",
    ),
    "dataset_space_exceeded": ProblemKind(
        409,
        "The owner's datasets would take too much space.",
        "Delete datasets that are no longer needed (`GET /datasets` lists their sizes).",
    ),
    "dataset_in_use": ProblemKind(
        409, "Unfinished jobs use this dataset.", "Cancel the jobs listed in `jobs`, or wait until they have ended."
    ),
    "dataset_fixed": ProblemKind(409, "This dataset cannot be deleted.", "Only uploaded datasets can be deleted."),
    "cap_exceeded": ProblemKind(
        409, "More jobs of the owner run than the new cap.", "Pause some of them first, or choose a higher cap."
    ),
    "budget_spent": ProblemKind(
        409,
        "The job has used its budget.",
        'Raise it with `PATCH /jobs/{job_id} {"budget": {"seconds": ...}}`, then resume or retry the job.',
        "Raise the budget, then resume or retry the job.",
    ),
    "illegal_transition": ProblemKind(
        409, "The job's state does not allow this.", "`allowed_actions` lists the actions that are possible now."
    ),
    "not_certifiable": ProblemKind(
        409,
        "The job has no certificate.",
        "Certify a job that succeeded and is reproducible; `detail` gives the reason.",
    ),
    "not_comparable": ProblemKind(
        409, "A replay cannot explain how these jobs differ.", "`GET /differences` shows how they differ."
    ),
    "wrong_kind": ProblemKind(
        409, "Jobs of this kind do not support this.", "`detail` names the request that a job of its kind supports."
    ),
    "wrong_dataset_kind": ProblemKind(
        409, "Datasets of this kind do not have this.", "Images have `examples`, tables have `rows` and `columns`."
    ),
    "keys_not_required": ProblemKind(
        409,
        "This service does not require keys.",
        "Create the first key with `tapeline keys create NAME`, then start the service with `TAPELINE_AUTH=keys`.",
    ),
    "key_not_rotatable": ProblemKind(
        409,
        "The key cannot be rotated.",
        "Only a valid key can be rotated, and only once. `allowed_actions` lists the actions that are possible now; "
        "`replaced_by` names its successor, if it has one.",
    ),
    "precondition_failed": ProblemKind(
        412,
        "The resource has changed since you read it.",
        "Its current `ETag` does not match `If-Match`. Read it again, then repeat the change.",
    ),
    "body_too_large": ProblemKind(413, "The body is too large.", "`GET /limits` gives the maximum size."),
    "unsupported_media_type": ProblemKind(
        415,
        "The content type is not supported.",
        "Send `Content-Type: application/json`; `multipart/form-data` for an upload, `text/csv` for a file of rows.",
    ),
    "range_not_satisfiable": ProblemKind(
        416, "The range is outside the file.", "`Content-Range` gives the size of the file."
    ),
    "foreign_host": ProblemKind(
        421,
        "This service does not accept that host name.",
        "Use a local name in the address, or add the name to `TAPELINE_ALLOWED_HOSTS`.",
    ),
    "invalid_spec": ProblemKind(
        422,
        "The spec is not valid.",
        "`errors` lists every fault: a JSON pointer, the reason, a code and often a suggestion.",
    ),
    "invalid_input": ProblemKind(
        422, "The input cannot be used.", "`errors` lists every fault: a JSON pointer, the reason and a code."
    ),
    "invalid_upload": ProblemKind(
        422,
        "These files could not be read as a dataset.",
        "`errors` lists each form field that must change, and why.",
    ),
    "idempotency_conflict": ProblemKind(
        422, "The idempotency key was used with another body.", "Use a new `Idempotency-Key` for a new request."
    ),
    "quota_exceeded": ProblemKind(
        429,
        "The owner's quota is exhausted.",
        "`GET /limits` shows the quotas; `detail` names the exhausted one and the remedy. `Retry-After` says when to "
        "try again.",
    ),
    "rate_limited": ProblemKind(429, "Too many requests.", "Wait for the number of seconds in `Retry-After`."),
    "internal": ProblemKind(500, "Internal error.", "The service's log has the details under this `request_id`."),
    "extra_missing": ProblemKind(
        501,
        "An optional library is not installed.",
        "Install it where the web process runs, with the command in `detail`, and try again: a restart is not needed.",
        for_people="Install it where the service runs, then press the button again: a restart is not needed.",
    ),
    "artifact_damaged": ProblemKind(
        500, "The file cannot be read.", "The file is missing or damaged. Run `tapeline doctor`."
    ),
    "store_unavailable": ProblemKind(
        503, "The store of files does not respond now.", "Try again later. `tapeline doctor` names the cause."
    ),
    "signing_unavailable": ProblemKind(
        503,
        "The service cannot sign certificates now.",
        "The operator checks `TAPELINE_SIGNING_KEY` and `TAPELINE_SIGNING_COMMAND`; `detail` gives the reason.",
    ),
    "database_unavailable": ProblemKind(
        503,
        "The database is not responding.",
        "Try again. With the same `Idempotency-Key`, a repeated request creates one job.",
    ),
    "dataset_unavailable": ProblemKind(
        503, "The dataset is not available.", "`detail` gives the reason; try again after `Retry-After` seconds."
    ),
    "busy": ProblemKind(
        503,
        "Too much work of this kind is in progress.",
        "Send fewer of these requests at a time, or try again after the seconds in `Retry-After`.",
        "Try again in a few seconds.",
    ),
    "too_many_uploads": ProblemKind(503, "Too many simultaneous uploads.", "Try again in a few seconds."),
    "storage_full": ProblemKind(507, "There is not enough storage.", "The operator has to free disk space."),
    "too_many_streams": ProblemKind(503, "Too many streams are open.", "Close some streams, or try again later."),
}
"""All problems by their ``code``."""
KINDS: Final = extended(_OF_KERNEL, (item.problems for item in installed()))
"""Every kind of problem by its code."""
