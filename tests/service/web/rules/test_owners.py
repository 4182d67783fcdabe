"""No operation reveals anything of another owner's objects: they look as if they did not exist."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

import pytest

from service.declarations import Room, modules
from service.web.http.path_parameters import examples
from service.web.http.queries import OTHER_OWNER
from tests.service.web.rules.operations import HTML, STREAM, Operation, Values, leaves, replaced, unreached
from tests.service.web.rules.populated import SECRET, PopulatedService

JSON = "application/json"
modules(Room.OPERATIONS)  # features declare their path parameters there
UNKNOWN = {**examples(), "name": "ann5-images", "upload_id": "anns-upload-0002"}
"""Ids and names of nothing."""
NOT_FOUND = {
    "job_id": "job_not_found",
    "sweep_id": "sweep_not_found",
    "group": "folds_not_found",
    "name": "dataset_not_found",
    "upload_id": None,
    "share_id": "share_not_found",
    "model_name": "model_not_found",
    "reference": "model_not_found",
    "webhook_id": "webhook_not_found",
}
"""The problem code for each path parameter that names an owner's object; ``None``: its absence is no problem."""
OWNERLESS = {
    "GET /docs/{section}": "a part of the documentation",
    "GET /keys/{key_id}": "admins manage the keys of all owners",
    "POST /keys/{key_id}/revoke": "admins manage the keys of all owners",
    "POST /keys/{key_id}/rotate": "admins manage the keys of all owners",
    "GET /owners/{owner_id}": "admins manage all owners",
    "PATCH /owners/{owner_id}": "admins manage all owners",
    "POST /workers/{worker_id}/drain": "admins manage the workers",
    "DELETE /workers/{worker_id}/drain": "admins manage the workers",
    "POST /models/{model_name}/versions": "the name of a new model, which others may have, too",
    "GET /shared/{token}": "whoever has the link may read it",
    "GET /ui/welcome/{token}": "whoever has the link may use it",
    "POST /session/{token}": "whoever has the link may use it",
}
"""Operations whose path names nothing of an owner's."""
SHARED_TOTALS = {
    "GET /metrics": "totals of all owners, for monitoring",
    "GET /queue": "`total`: the length of the queue, in which the caller's jobs have positions",
    "GET /ui/queue": "the page of the queue",
    "GET /ui/workers": "the number of queued jobs",
}
"""Lists with numbers that count the objects of all owners."""


def test_another_owners_object_looks_like_one_that_does_not_exist(
    populated: PopulatedService, subtests: pytest.Subtests
) -> None:
    operations = [operation for operation in populated.operations if "{" in operation.path]
    reached = []
    before = _anns_view(populated)
    for operation in operations:
        code, *_ = [code for name, code in NOT_FOUND.items() if name in operation.parameters("path")] or [""]
        if code == "" or str(operation) in OWNERLESS:
            continue
        reached.append(operation)
        with subtests.test(str(operation)):
            foreign, unknown = _foreign(populated, operation)
            # An admin may read the jobs and sweeps of all owners, revoke their links, and delete their webhooks.
            may_read = operation.method == "GET" and {"job_id", "sweep_id"} & operation.parameters("path").keys()
            may = may_read or "share_id" in operation.parameters("path")
            may = may or str(operation) == "DELETE /webhooks/{webhook_id}"
            strangers = ("bob",) if may else ("operator",) if operation.scope == "admin" else ("bob", "operator")
            for stranger, accept in itertools.product(strangers, (JSON, HTML)):
                responses = [_ask(populated, operation, stranger, values, accept) for values in (foreign, unknown)]
                contents = [
                    _comparable(populated, response, *values.values())
                    for response, values in zip(responses, (foreign, unknown), strict=True)
                ]
                assert contents[0] == contents[1], (stranger, accept)
                if accept == JSON and code is not None:
                    assert [(item.status_code, item.json["code"]) for item in responses] == [(404, code)] * 2
    assert unreached(operations, reached, OWNERLESS) == set()
    assert _anns_view(populated) == before


def test_another_owners_id_in_a_parameter_is_like_an_unknown_one(
    populated: PopulatedService, subtests: pytest.Subtests
) -> None:
    """Every URL parameter that may be a text is tried with an id of every kind."""
    tried = 0
    for operation in populated.operations:
        if operation.method != "GET" or "{" in operation.path or operation.scope == "admin":
            continue
        for name, parameter in operation.parameters("query").items():
            if not _may_be_text(parameter["schema"]):
                continue
            tried += 1
            with subtests.test(str(operation), parameter=name):
                for kind, values in _references(populated).items():
                    answers = []
                    for value in values:
                        query = populated.query(operation, owner="bob") | {name: value}
                        response = populated.callers["bob"].send(operation, {}, query_string=query)
                        answers.append(_comparable(populated, response, value, value.partition(":")[0]))
                    assert answers[0] == answers[1], kind
    assert tried > 50


def test_another_owners_id_in_a_body_is_like_an_unknown_one(
    populated: PopulatedService, subtests: pytest.Subtests
) -> None:
    """Every text in the documented bodies is tried with an id of every kind, by an owner with a job."""
    tried = set()
    for operation in populated.operations:
        if not operation.takes_json or operation.scope == "admin":
            continue
        query = {"dry_run": "true"} if "dry_run" in operation.parameters("query") else {}
        for body, path in _texts(populated, operation):
            tried.add(str(operation))
            with subtests.test(str(operation), path=path):
                for kind, values in _references(populated).items():
                    answers = []
                    for value in values:
                        response = populated.callers["bob"].send(
                            operation,
                            {"job_id": populated.ids["bobs"]},
                            json=replaced(body, path, value),
                            query_string=query,
                        )
                        assert_reveals_nothing(populated, response.text.replace(value.partition(":")[0], ""))
                        # The details may suggest something similar, which an id is by chance.
                        faults = [(fault["pointer"], fault["code"]) for fault in response.json.get("errors", ())]
                        answers.append((response.status_code, response.json.get("code"), faults))
                    assert answers[0] == answers[1], kind
    assert tried >= {"POST /jobs", "POST /sweeps", "POST /differences", "POST /jobs/{job_id}/fork"}


def test_no_list_changes_when_another_owner_creates_objects(
    populated: PopulatedService, subtests: pytest.Subtests
) -> None:
    """Carol, who has nothing, had asked for every list before Ann created her first object."""
    for address, before in populated.first_answers.items():
        with subtests.test(address):
            after = populated.first_answer(address)
            assert_reveals_nothing(populated, after)
            assert (after == before) is (address not in SHARED_TOTALS)
    assert "event: snapshot" in populated.first_answers["GET /stream"]
    assert len(populated.first_answers) > 30


def test_what_belongs_to_another_owner_is_listed_for_admins_only(
    populated: PopulatedService, subtests: pytest.Subtests
) -> None:
    """The parameter ``owner`` is never ignored: a list that ignored it would show the caller's objects as others'."""
    operations = [item for item in populated.operations if item.method == "GET" and _lists_for_others(item)]
    for operation in operations:
        with subtests.test(str(operation)):
            values = next(iter(populated.objects(operation)))
            response = populated.callers["bob"].send(operation, values, query_string={"owner": "ann"})
            assert (response.status_code, response.json["code"]) == (403, "scope_missing")
            response = populated.callers["operator"].send(
                operation, values, query_string={"owner": "nobody-knows-them"}
            )
            assert (response.status_code, response.json["code"]) == (404, "owner_not_found")
    assert len(operations) > 15


def _lists_for_others(operation: Operation) -> bool:
    return operation.parameters("query").get("owner", {}).get("description") == OTHER_OWNER


def _foreign(populated: PopulatedService, operation: Operation) -> tuple[Values, Values]:
    """The path parameters of an object of Ann's, and of one that does not exist."""
    foreign = next(iter(populated.objects(operation)))
    return foreign, {
        **foreign,
        **{name: UNKNOWN[name] for name in foreign if name in {*NOT_FOUND, "artifact_id", "delivery_id"}},
    }


def _ask(populated: PopulatedService, operation: Operation, stranger: str, values: Values, accept: str) -> Any:
    body = {"json": operation.bodies[0]} if operation.takes_json else {}
    query = populated.query(operation, owner="bob")
    return populated.callers[stranger].send(operation, values, query_string=query, headers={"Accept": accept}, **body)


def _comparable(populated: PopulatedService, response: Any, *sent: str) -> tuple[int, str]:
    """Status and content, without the ids that the request contained, and without suggestions of similar words."""
    text = "" if response.mimetype == STREAM else response.text
    for value in sorted(sent, key=len, reverse=True):
        text = re.sub(re.escape(value), "…", text, flags=re.IGNORECASE) if len(value) > 3 else text
    assert_reveals_nothing(populated, text)
    return response.status_code, re.sub(r"req_\w+|; did you mean [^?]*\?|, \"suggestion\": \"[^\"]*\"", "", text)


def assert_reveals_nothing(populated: PopulatedService, text: str) -> None:
    """Check that a text contains no id and no word of Ann's."""
    own = [value for name, value in populated.ids.items() if name not in ("bobs", "key")]
    assert [value for value in (SECRET, *own) if value in text] == []


def _anns_view(populated: PopulatedService) -> list[Any]:
    """Ann's jobs, sweep and datasets."""
    addresses = [
        "/jobs?limit=100",
        f"/sweeps/{populated.ids['sweep']}",
        "/datasets",
        f"/folds/{populated.ids['group']}",
    ]
    return [populated.post("ann", address, None, method="GET") for address in addresses]


def _references(populated: PopulatedService) -> dict[str, tuple[str, str]]:
    """An id of Ann's of each kind, and one of nothing."""
    ids = populated.ids
    return {
        "job": (ids["classifier"], UNKNOWN["job_id"]),
        "sweep": (ids["sweep"], UNKNOWN["sweep_id"]),
        "trial": (f"{ids['sweep']}:0", f"{UNKNOWN['sweep_id']}:0"),
        "dataset": (ids["images"], UNKNOWN["name"]),
        "folds": (ids["group"], UNKNOWN["group"]),
    }


def _may_be_text(schema: Any) -> bool:
    options = schema.get("anyOf", [schema])
    options += [option["items"] for option in options if "items" in option]
    return any(option.get("type") == "string" and "enum" not in option for option in options)


def _texts(populated: PopulatedService, operation: Operation) -> Iterator[tuple[Any, tuple[str | int, ...]]]:
    """Every text in the documented bodies, in which example ids are those of Bob's job."""
    dataset = {"name": "mnist-10k"}
    further = {
        "/jobs/{job_id}/fork": [{"overrides": {"dataset": dataset}}],
        "/sweeps": [{"base": {"kind": "classifier", "dataset": dataset}, "seeds": [0, 1]}],
    }
    for body in operation.bodies + further.get(operation.path, []):
        for path, value in list(leaves(body)):
            if isinstance(value, str) and value.startswith("job_"):
                body = replaced(body, path, populated.ids["bobs"])
        yield from ((body, path) for path, value in leaves(body) if isinstance(value, str) and len(value) < 100)
