from __future__ import annotations

import base64
import inspect
import io
import json
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from service.cli import main
from tapeline import AmbiguousJob, ApiError, Client, ClientError, Job, ServerUnreachable, Sweep, VersionMismatch
from tapeline.operations.datasets import Dataset
from tapeline.version import VERSION
from tests.tapeline.stub.server import JOB, StubServer, hang_up, response


def test_an_api_error_shows_every_fault_with_its_pointer(server: StubServer, client: Client) -> None:
    faults = [
        {"pointer": "#/epochs", "detail": "must be greater than 0", "code": "out_of_range"},
        {"pointer": "#/optimiser", "detail": "unknown field; did you mean 'optimizer'?", "code": "unknown_field"},
    ]
    server.responses = [
        response({"code": "invalid_spec", "title": "Invalid spec", "detail": "2: ...", "errors": faults}, 422)
    ]
    with pytest.raises(ApiError) as caught:
        client.submit({"kind": "gan"})
    assert caught.value.status == 422
    assert caught.value.code == "invalid_spec"
    assert caught.value.errors == faults
    assert str(caught.value).splitlines() == [
        "Invalid spec",
        "  #/epochs: must be greater than 0",
        "  #/optimiser: unknown field; did you mean 'optimizer'?",
    ]


def test_actions_on_a_job_send_the_given_values(server: StubServer, job: Job) -> None:
    server.responses = [response({"id": "job_2"}, 201), response({"id": "job_3"}, 201), response({"name": None})]
    job.fork({"epochs": 9}, checkpoint=3, idempotency_key="k")
    job.reproduce()
    job.change(name=None)
    requests = [(method, path, body) for method, path, _, body in server.requests]
    assert requests == [
        ("POST", "/jobs/job_00000000000000000000000000/fork", b'{"checkpoint": 3, "overrides": {"epochs": 9}}'),
        ("POST", "/jobs/job_00000000000000000000000000/reproduce", b""),
        ("PATCH", "/jobs/job_00000000000000000000000000", b'{"name": null}'),
    ]
    assert server.requests[0][2]["Idempotency-Key"] == "k"
    assert server.requests[1][2]["Idempotency-Key"]


def test_a_response_without_a_problem_document_raises_an_error_with_its_status(
    server: StubServer, client: Client
) -> None:
    server.responses = [response(b"<html>", 413)]
    with pytest.raises(ApiError, match="413"):
        client.submit({})


def test_a_server_other_than_tapeline_is_recognised(server: StubServer, client: Client) -> None:
    server.responses = [response(b"<html>hello</html>")]
    with pytest.raises(ClientError, match="is not Tapeline"):
        client.job("job_00000000000000000000000000")


def test_an_unreachable_server_is_named_with_the_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with Client(url) as client, pytest.raises(ServerUnreachable, match=r"connection refused.*tapeline up") as caught:
        client.job("job_00000000000000000000000000")
    assert caught.value.server == url


@pytest.mark.parametrize(("version", "order"), [("0.0.9", "newer"), ("99.10.0", "older")])
def test_a_client_of_another_version_than_its_server_says_so_once(
    server: StubServer, client: Client, version: str, order: str
) -> None:
    server.responses = [response({"data": []}, Tapeline_Version=version)] * 3
    with pytest.warns(
        VersionMismatch, match=rf"is {order} than the service .*pip install \"tapeline=={version}"
    ) as caught:
        client.presets()
    client.presets()
    assert len(caught) == 1
    listed = CliRunner().invoke(main, ["--server", server.url, "datasets"])
    assert f"tapeline: this client ({VERSION}) is {order} than the service" in listed.stderr
    assert len(listed.stderr.splitlines()) == 1


def test_a_version_is_compared_before_an_error_is_raised(server: StubServer, client: Client) -> None:
    server.responses = [response({"code": "not_found", "detail": "no such path"}, 404, Tapeline_Version="99.0")]
    with pytest.warns(VersionMismatch, match="is older"), pytest.raises(ApiError, match="no such path"):
        client.presets()


@pytest.mark.filterwarnings("error")
def test_a_created_job_is_returned_where_warnings_are_errors(server: StubServer, client: Client) -> None:
    newer = {"Tapeline_Version": "99.0"}
    refusal = response({"code": "invalid_spec", "detail": "no kind"}, 422, **newer)
    server.responses = [refusal, response({"id": JOB}, 201, **newer), *[response({"data": []}, **newer)] * 2]
    with pytest.raises(ApiError, match="no kind"):
        client.submit({})
    assert client.submit({"kind": "gan"}).id == JOB
    with pytest.raises(VersionMismatch, match="is older"):
        client.presets()
    assert client.presets() == []


def test_a_client_without_arguments_calls_the_service_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for host, port, url in (
        ("", "", "http://127.0.0.1:8000"),
        ("0.0.0.0", "8001", "http://127.0.0.1:8001"),
        ("::1", "9", "http://[::1]:9"),
    ):
        monkeypatch.setenv("TAPELINE_HOST", host)
        monkeypatch.setenv("TAPELINE_PORT", port)
        with Client() as client:
            assert client.server == url
    monkeypatch.setenv("TAPELINE_PORT", "http")
    with pytest.raises(ValueError, match="TAPELINE_PORT must be a port number"):
        Client()
    refused = CliRunner().invoke(main, ["datasets"])
    assert (refused.exit_code, "TAPELINE_PORT must be a port number" in refused.stderr) == (2, True)


def test_a_submission_is_retried_with_the_same_idempotency_key(server: StubServer, client: Client) -> None:
    server.responses = [
        hang_up,
        response({"code": "busy"}, 503),
        response({"id": "job_00000000000000000000000000"}, 201),
    ]
    assert client.submit({"kind": "gan"}) == {"id": "job_00000000000000000000000000"}
    keys = [headers["Idempotency-Key"] for _, _, headers, _ in server.requests]
    assert len(keys) == 3
    assert len(set(keys)) == 1


def test_an_action_that_may_have_happened_is_not_retried(server: StubServer, job: Job) -> None:
    server.responses = [hang_up, response({})]
    with pytest.raises(ServerUnreachable):
        job.retry()
    assert len(server.requests) == 1


def test_remedies_are_methods_of_the_client_and_options_of_commands(server: StubServer, client: Client) -> None:
    server.responses = [
        response({"code": "key_required", "detail": "send a key"}, 401),
        response({"data": [{"id": f"job_{n:026}", "name": "a", "status": "queued", "created_at": "2026-01-01T00:00:00Z"}
                           for n in range(12)]}),
    ]  # fmt: skip
    with pytest.raises(ApiError, match=r"give one with Client\(server, key\)"):
        client.presets()
    many = server.responses * 1
    server.responses = [response({"data": []}), *many]
    with pytest.raises(AmbiguousJob, match=r"and 2 more; client\.jobs\(q='job'\) lists them"):
        client.job("job")
    for text, listed, remedy in (
        ("job", many, "and 2 more; see: tapeline jobs -q job"),
        ("absent", [response({"data": []})], "list the jobs with: tapeline jobs"),
    ):
        no_sweeps = response({"data": [], "has_more": False, "next_cursor": None})
        server.responses = [response({"data": []}), *listed, no_sweeps]
        assert remedy in CliRunner().invoke(main, ["--server", server.url, "show", text]).stderr


def test_the_command_line_explains_how_to_give_a_key(server: StubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = {"code": "key_required", "detail": "send a key as Authorization: Bearer <key>"}
    server.responses = [response(problem, 401), response(problem | {"detail": "the key has expired"}, 401)]
    monkeypatch.delenv("TAPELINE_API_KEYS", raising=False)
    without_key = CliRunner().invoke(main, ["--server", server.url, "jobs"])
    expired_key = CliRunner().invoke(main, ["--server", server.url, "--key", "old", "jobs"])
    remedy = "give one with --key KEY or TAPELINE_API_KEYS=KEY; the operator creates keys with: tapeline keys create"
    assert f"tapeline: the service requires an API key: {remedy}" in without_key.stderr
    assert f"tapeline: the key has expired: {remedy}" in expired_key.stderr


def test_a_key_is_sent_as_a_bearer_token(server: StubServer) -> None:
    server.responses = [response({"id": "job_00000000000000000000000000"})]
    with Client(server.url, "secret") as client:
        client.job("job_00000000000000000000000000")
    assert server.requests[0][2]["Authorization"] == "Bearer secret"


def test_local_requests_bypass_the_proxy(server: StubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    server.responses = [response({"id": "job_00000000000000000000000000"})]
    with Client(server.url) as client:
        assert client.job("job_00000000000000000000000000") == {"id": "job_00000000000000000000000000"}


def test_a_name_with_path_characters_is_not_used_as_a_path(server: StubServer, client: Client) -> None:
    server.responses = [response({"data": [], "has_more": False})] * 2
    with pytest.raises(ApiError, match=r"no job matches '\.\./datasets'"):
        client.job("../datasets")
    assert {path.partition("?")[0] for _, path, _, _ in server.requests} == {"/jobs"}
    with pytest.raises(ApiError, match="not the id of a job"):
        Job(client._connection, {"id": "../datasets"}).refresh()


def test_a_list_fetches_all_pages(server: StubServer, client: Client) -> None:
    server.responses = [
        response({"data": [{"id": "a"}, {"id": "b"}], "has_more": True, "next_cursor": "c1"}),
        response({"data": [{"id": "c"}], "has_more": False, "next_cursor": None}),
    ]
    assert [job["id"] for job in client.list(kind="gan")] == ["a", "b", "c"]
    assert [path for _, path, _, _ in server.requests] == [
        "/jobs?kind=gan&limit=100",
        "/jobs?kind=gan&cursor=c1&limit=100",
    ]


def test_the_client_retries_after_the_time_in_retry_after(server: StubServer, job: Job) -> None:
    busy = response({"code": "too_many_requests"}, 429, Retry_After="1")
    server.responses = [busy, response({"id": "j"})]
    started = time.monotonic()
    job.cancel()  # safe to retry, since the server has refused it
    assert time.monotonic() - started >= 1
    assert [request[:2] for request in server.requests] == [("POST", f"/jobs/{JOB}/cancel")] * 2


def test_former_methods_for_a_job_accept_its_name(server: StubServer, client: Client) -> None:
    job = {"id": JOB, "name": "first", "kind": "classifier", "status": "succeeded"}
    for method in (client.cancel, client.results, client.checkpoints):
        server.requests.clear()
        server.responses = [
            response({"data": [job], "has_more": False}),
            response(job),
            response({"id": JOB, "data": []}),
        ]
        with pytest.warns(DeprecationWarning, match="goes with 0.3: use client.job"):
            method("first")
        assert server.requests[0][:2] == ("GET", "/jobs?limit=100&name=first")
        assert server.requests[-1][1].startswith(f"/jobs/{JOB}/")


QUOTA_DETAIL = "ann has 2 queued jobs, the limit of TAPELINE_OWNER_QUEUED; ask the operator for a higher limit"


@pytest.mark.nightly
def test_the_command_line_reports_why_it_waits_and_the_remedy_when_it_gives_up(server: StubServer) -> None:
    problem = {"code": "quota_exceeded", "detail": QUOTA_DETAIL, "title": "Exhausted."}
    busy = response(problem, 429, Retry_After="1")
    server.responses = [busy] * 4
    result = CliRunner().invoke(main, ["--server", server.url, "train", "-"], input='{"kind": "classifier"}')
    assert result.exit_code == 1
    wait = f"{QUOTA_DETAIL}; trying again in 1 s (Ctrl-C stops)"
    assert result.stderr.splitlines()[:3] == [wait] * 3
    final = f"{QUOTA_DETAIL}; gave up after 4 attempts; cancel a job with: tapeline cancel JOB"
    assert final in " ".join(result.stderr.split())
    assert result.stdout == ""


def test_a_refusal_because_of_stored_files_is_reported_at_once_with_the_remedy(server: StubServer) -> None:
    detail = "the files of ann's jobs take 9 of 9 bytes (TAPELINE_OWNER_ARTIFACTS); delete jobs"
    server.responses = [response({"code": "quota_exceeded", "detail": detail}, 429, Retry_After="60")]
    result = CliRunner().invoke(main, ["--server", server.url, "train", "-"], input='{"kind": "classifier"}')
    assert (result.exit_code, len(server.requests)) == (1, 1)
    assert f"{detail}; delete a job with: tapeline delete JOB" in " ".join(result.stderr.split())


def test_a_retry_after_of_an_hour_is_not_waited_for(server: StubServer, client: Client) -> None:
    server.responses = [response({"code": "too_many_requests", "detail": "later"}, 429, Retry_After="3600")]
    with pytest.raises(ApiError, match="later"):
        client.job(JOB)
    assert len(server.requests) == 1


def test_the_key_comes_from_the_environment_unless_it_is_given(
    server: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAPELINE_API_KEYS", "first, second")
    server.responses = [response({"id": "j"}), response({"id": "j"})]
    for key in (None, "given"):
        with Client(server.url, key) as client:
            client.job(JOB)
    assert [headers["Authorization"] for _, _, headers, _ in server.requests] == ["Bearer first", "Bearer given"]


def test_images_are_sent_in_base64_and_numbers_unchanged(server: StubServer, job: Job, tmp_path: Path) -> None:
    picture = io.BytesIO()
    Image.new("L", (28, 28), 7).save(picture, "PNG")
    (tmp_path / "a.png").write_bytes(picture.getvalue())
    server.responses = [hang_up, response({"classes": [1, 2, 3]})]  # a prediction can be retried safely
    job.predict([tmp_path / "a.png", picture.getvalue(), [[0.5]]], checkpoint=3, fit=True)
    body = json.loads(server.requests[-1][3])
    assert body["images"] == [base64.b64encode(picture.getvalue()).decode()] * 2 + [[[0.5]]]
    assert (body["checkpoint"], body["fit"], body["invert"]) == (3, True, False)


def test_a_generated_picture_comes_with_its_checkpoint(server: StubServer, job: Job) -> None:
    server.responses = [response(b"GIF89a", Tapeline_Checkpoint="12")]
    picture = job.generate_picture(format="film", seeds=[1, 2], steps=5)
    assert (picture.data, picture.checkpoint) == (b"GIF89a", 12)
    assert json.loads(server.requests[0][3]) == {"format": "film", "seeds": [1, 2], "steps": 5}


EMPTY_IDS: dict[str, Callable[[Client], object]] = {
    "a sweep": lambda client: client.find_sweep(""),
    "a sweep's handle": lambda client: Sweep(client._connection, {"id": ""}).cancel(),
    "a job's handle": lambda client: Job(client._connection, {"id": ""}).refresh(),
    "a job's stream": lambda client: list(Job(client._connection, {"id": ""}).events()),
    "a job's bisection": lambda client: client.bisect(Job(client._connection, {"id": ""}), "val_loss", above=1),
    "an export of a job": lambda client: Job(client._connection, {"id": ""}).export("onnx"),
    "a checkpoint": lambda client: Job(client._connection, {"id": JOB}).download_checkpoint(""),  # type: ignore[arg-type]
    "a dataset": lambda client: client.dataset(""),
    "columns of a dataset": lambda client: client.dataset_columns(""),
    "rows of a dataset": lambda client: list(client.dataset_rows("")),
    "a dataset to delete": lambda client: client.delete_dataset(""),
    "a key": lambda client: client.rotate_key(""),
    "the folder above": lambda client: client.dataset(".."),
    "an upload": lambda client: client.upload_progress(""),
}


@pytest.mark.parametrize("call", EMPTY_IDS.values(), ids=EMPTY_IDS)
def test_an_empty_id_is_an_error_and_no_request_for_something_else(
    server: StubServer, client: Client, call: Callable[[Client], object]
) -> None:
    with pytest.raises(ApiError, match=r"'(|\.\.)' is not (an id or name|the id of a job)") as caught:
        call(client)
    assert (caught.value.status, server.requests) == (404, [])


def test_an_empty_id_is_an_error_of_the_command_line(server: StubServer) -> None:
    for arguments in (["sweeps", ""], ["datasets", "delete", ""], ["datasets", "show", ""]):
        result = CliRunner().invoke(main, ["--server", server.url, *arguments])
        assert result.exit_code != 0, arguments
        assert "'' is not an id or name" in result.stderr, (arguments, result.stderr)
    assert server.requests == []


def test_every_path_of_the_client_is_made_where_empty_ids_are_refused() -> None:
    folder = Path(inspect.getfile(Client)).parent
    texts = {path.name: path.read_text() for path in folder.rglob("*.py")}
    assert [name for name, text in texts.items() if re.search(r"f[\"']/\w+/\{(?!segment\()", text)] == []


def test_an_id_is_quoted_in_a_path(server: StubServer, client: Client) -> None:
    server.responses = [response({"code": "sweep_not_found", "detail": "there is no such sweep"}, 404)]
    with pytest.raises(ApiError, match="no such sweep"):
        client.find_sweep("swp_/../jobs?limit=1")
    assert server.requests[0][1] == "/sweeps/swp_%2F..%2Fjobs%3Flimit%3D1"


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda client: client.sweep({"base": {}}, seeds=5, name="mine", objective={}), "seeds, name, objective"),
        (lambda client: client.sweep_dry_run({"base": {}}, epochs=1), "write into the spec, .*: epochs"),
        (lambda client: client.train(dataset=iris(client), settings={"dataset": "wine"}), "'wine', .* 'iris'"),
        (lambda client: client.train(dataset=iris(client), settings={"dataset.name": "wine"}), "'wine', .* 'iris'"),
        (lambda client: client.train(iris(client), epochs=1, settings={"epochs": 2}), "in settings: epochs"),
        (lambda client: client.train(dataset="iris", target="kind"), "target are options of an upload"),
        (lambda client: client.sweep(dataset=iris(client), seeds=1, kind="gan", settings={"kind": "gan"}), "kind"),
    ],
)  # fmt: skip
def test_an_argument_that_would_have_no_effect_is_refused(
    server: StubServer, client: Client, call: Callable[[Client], object], text: str
) -> None:
    with pytest.raises(TypeError, match=text):
        call(client)
    assert server.requests == []


def iris(client: Client) -> Dataset:
    return Dataset(client._connection, {"name": "iris"})


def test_a_dataset_of_the_service_is_data_to_train_on(server: StubServer, client: Client) -> None:
    server.responses = [response({"id": JOB}, 201)]
    client.train(iris(client), epochs=2)
    spec = {"kind": "classifier", "name": "iris", "epochs": 2, "dataset": {"name": "iris"}}
    assert json.loads(server.requests[0][3]) == spec


def test_a_number_of_seeds_is_limited_before_they_are_made(server: StubServer, client: Client) -> None:
    with pytest.raises(ValueError, match="a sweep has 1 to 100 seeds, not 4,000,000,000"):
        client.sweep(dataset=iris(client), seeds=4_000_000_000)
    server.responses = [response({"id": "swp_1"}, 201)]
    client.sweep(dataset=iris(client), seeds=range(4_000_000_000))
    assert len(json.loads(server.requests[0][3])["seeds"]) == 101, "which the service refuses"
