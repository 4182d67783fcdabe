from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

from service.cli import main
from service.client import ApiError, Client, ClientError, DownloadDamaged, Event, Job, ServerUnreachable, safe_name

Handler = Callable[[BaseHTTPRequestHandler, bytes], None]

JOB = "job_" + 26 * "0"


class Script:
    """A real HTTP server that answers as the test says, one function a request."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.answers: list[Handler] = []
        script = self

        class Scripted(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                script.requests.append((self.command, self.path, dict(self.headers), body))
                script.answers.pop(0)(self, body)

            do_GET = do_POST = do_PATCH = do_DELETE = handle_any  # noqa: N815 - the base class looks for these names

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Scripted)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def answer(document: Any, status: int = 200, **headers: str) -> Handler:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()

    def give(request: BaseHTTPRequestHandler, body: bytes) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)

    return give


def hang_up(request: BaseHTTPRequestHandler, body: bytes) -> None:
    request.close_connection = True
    request.connection.shutdown(socket.SHUT_RDWR)


def stream(*texts: str) -> Handler:
    """Sends the texts, then breaks off."""

    def give(request: BaseHTTPRequestHandler, body: bytes) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "text/event-stream")
        request.send_header("Connection", "close")
        request.end_headers()
        for text in texts:
            request.wfile.write(text.encode())
            request.wfile.flush()
        request.close_connection = True

    return give


def event(kind: str, seq: int | None = None, **data: Any) -> str:
    number = "" if seq is None else f"id: {seq}\n"
    return f"{number}event: {kind}\ndata: {json.dumps(data)}\n\n"


SNAPSHOT = event("snapshot", status="running")


@pytest.fixture
def script() -> Iterator[Script]:
    made = Script()
    yield made
    made.close()


@pytest.fixture
def client(script: Script) -> Iterator[Client]:
    with Client(script.url) as made:
        yield made


def test_an_error_of_the_api_shows_every_fault_with_its_place(script: Script, client: Client) -> None:
    faults = [
        {"pointer": "#/epochs", "detail": "must be greater than 0", "code": "out_of_range"},
        {"pointer": "#/optimiser", "detail": "unknown field; did you mean 'optimizer'?", "code": "unknown_field"},
    ]
    script.answers = [
        answer({"code": "invalid_spec", "title": "Invalid spec", "detail": "2: ...", "errors": faults}, 422)
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


def test_verbs_send_what_they_are_given(script: Script, client: Client) -> None:
    script.answers = [answer({"id": "job_2"}, 201), answer({"id": "job_3"}, 201), answer({"name": None})]
    client.fork("job_00000000000000000000000001", {"epochs": 9}, checkpoint=3, idempotency_key="k")
    client.reproduce("job_00000000000000000000000001")
    client.change("job_00000000000000000000000001", name=None)
    asked = [(method, path, body) for method, path, _, body in script.requests]
    assert asked == [
        ("POST", "/jobs/job_00000000000000000000000001/fork", b'{"checkpoint": 3, "overrides": {"epochs": 9}}'),
        ("POST", "/jobs/job_00000000000000000000000001/reproduce", b""),
        ("PATCH", "/jobs/job_00000000000000000000000001", b'{"name": null}'),
    ]
    assert script.requests[0][2]["Idempotency-Key"] == "k"
    assert script.requests[1][2]["Idempotency-Key"]


def test_a_response_without_a_problem_document_still_gives_a_clear_error(script: Script, client: Client) -> None:
    script.answers = [answer(b"<html>", 413)]
    with pytest.raises(ApiError, match="413"):
        client.submit({})


def test_something_else_than_tapeline_is_recognised(script: Script, client: Client) -> None:
    script.answers = [answer(b"<html>hello</html>")]
    with pytest.raises(ClientError, match="is not Tapeline"):
        client.get("job_00000000000000000000000001")


def test_a_server_that_is_not_there_is_named_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with Client(url) as client, pytest.raises(ServerUnreachable, match=r"connection refused.*tapeline up") as caught:
        client.get("job_00000000000000000000000001")
    assert caught.value.server == url


def test_a_submission_is_repeated_under_the_same_key(script: Script, client: Client) -> None:
    script.answers = [hang_up, answer({"code": "busy"}, 503), answer({"id": "job_00000000000000000000000001"}, 201)]
    assert client.submit({"kind": "gan"}) == {"id": "job_00000000000000000000000001"}
    keys = [headers["Idempotency-Key"] for _, _, headers, _ in script.requests]
    assert len(keys) == 3
    assert len(set(keys)) == 1


def test_an_action_is_not_repeated_where_it_may_have_happened(script: Script, client: Client) -> None:
    script.answers = [hang_up, answer({})]
    with pytest.raises(ServerUnreachable):
        client.retry("job_00000000000000000000000001")
    assert len(script.requests) == 1


def test_the_terminal_says_how_to_give_a_key(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = {"code": "key_required", "detail": "send a key as Authorization: Bearer <key>"}
    script.answers = [answer(problem, 401), answer(problem | {"detail": "the key has expired"}, 401)]
    monkeypatch.delenv("TAPELINE_API_KEYS", raising=False)
    without = CliRunner().invoke(main, ["--server", script.url, "jobs"])
    wrong = CliRunner().invoke(main, ["--server", script.url, "--key", "old", "jobs"])
    remedy = "give one with --key KEY or TAPELINE_API_KEYS=KEY; the operator creates keys with: tapeline keys create"
    assert f"tapeline: the service requires an API key: {remedy}" in without.stderr
    assert f"tapeline: the key has expired: {remedy}" in wrong.stderr


def test_a_key_travels_as_a_bearer(script: Script) -> None:
    script.answers = [answer({"id": "job_00000000000000000000000001"})]
    with Client(script.url, "secret") as client:
        client.get("job_00000000000000000000000001")
    assert script.requests[0][2]["Authorization"] == "Bearer secret"


def test_local_requests_bypass_the_proxy(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    script.answers = [answer({"id": "job_00000000000000000000000001"})]
    with Client(script.url) as client:
        assert client.get("job_00000000000000000000000001") == {"id": "job_00000000000000000000000001"}


def test_a_name_with_path_characters_is_no_path(script: Script, client: Client) -> None:
    script.answers = [answer({"data": [], "has_more": False})] * 2
    with pytest.raises(ApiError, match=r"no job matches '\.\./datasets'"):
        client.get("../datasets")
    assert {path.partition("?")[0] for _, path, _, _ in script.requests} == {"/jobs"}
    with pytest.raises(ApiError, match="not the id of a job"):
        Job(client._connection, {"id": "../datasets"}).refresh()


def test_a_list_goes_through_all_pages(script: Script, client: Client) -> None:
    script.answers = [
        answer({"data": [{"id": "a"}, {"id": "b"}], "has_more": True, "next_cursor": "c1"}),
        answer({"data": [{"id": "c"}], "has_more": False, "next_cursor": None}),
    ]
    assert [job["id"] for job in client.list(kind="gan")] == ["a", "b", "c"]
    assert [path for _, path, _, _ in script.requests] == [
        "/jobs?kind=gan&limit=100",
        "/jobs?kind=gan&cursor=c1&limit=100",
    ]


def test_a_reconnected_stream_continues_where_it_broke(script: Script, client: Client) -> None:
    script.answers = [
        stream(SNAPSHOT, event("metrics", 1, epoch=1), event("metrics", 2, epoch=2), "id: 3\nevent: metr"),
        hang_up,
        stream(SNAPSHOT, event("metrics", 2, epoch=2), ": ping\n\n", event("progress", step=9)),
        stream(SNAPSHOT, event("metrics", 3, epoch=3), event("end", 4, status="succeeded")),
    ]
    got = list(client.stream("job_00000000000000000000000001"))
    assert [event.seq for event in got if event.seq is not None] == [1, 2, 3, 4]
    assert got[-1] == Event("end", {"status": "succeeded"}, 4)
    assert [headers.get("Last-Event-ID") for _, _, headers, _ in script.requests] == [None, "2", "2", "2"]


def test_a_stream_of_an_ended_job_of_which_everything_is_known_ends(script: Script, client: Client) -> None:
    def nothing_more(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        handler.send_response(204)
        handler.end_headers()

    script.answers = [nothing_more]
    assert list(client.stream("job_00000000000000000000000001", after=9)) == []


def test_a_stream_gives_up_when_the_service_stays_away(script: Script, client: Client) -> None:
    script.answers = [stream(SNAPSHOT), hang_up, hang_up, hang_up]
    with pytest.raises(ServerUnreachable):
        list(client.stream("job_00000000000000000000000001", patience_s=0.3))


def test_a_stream_of_an_unknown_job_is_an_error_at_once(script: Script, client: Client) -> None:
    script.answers = [answer({"code": "job_not_found", "detail": "there is no such job"}, 404)]
    with pytest.raises(ApiError, match="no such job"):
        list(client.stream("job_00000000000000000000000001"))


def digest_of(data: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


def test_a_download_is_whole_and_has_the_name_that_the_service_gives(
    script: Script, client: Client, tmp_path: Path
) -> None:
    disposition = 'attachment; filename="checkpoint-0003.safetensors"'
    script.answers = [answer(b"weights", Repr_Digest=digest_of(b"weights"), Content_Disposition=disposition)]
    path = client.download("/jobs/job_00000000000000000000000001/checkpoints/best", tmp_path)
    assert path == tmp_path / "checkpoint-0003.safetensors"
    assert path.read_bytes() == b"weights"


def test_a_damaged_download_leaves_the_old_file_and_nothing_else(
    script: Script, client: Client, tmp_path: Path
) -> None:
    (tmp_path / "best").write_bytes(b"old")
    script.answers = [answer(b"weighty", Repr_Digest=digest_of(b"weights"))]
    with pytest.raises(DownloadDamaged, match="SHA-256"):
        client.download("/jobs/job_00000000000000000000000001/checkpoints/best", tmp_path / "best")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"best": b"old"}


def test_a_download_to_a_pipe_or_a_link_leaves_it_in_its_place(script: Script, client: Client, tmp_path: Path) -> None:
    pipe, link, real = tmp_path / "pipe", tmp_path / "link", tmp_path / "real"
    os.mkfifo(pipe)
    real.write_bytes(b"old")
    link.symlink_to(real)
    script.answers = [answer(b"weights"), answer(b"weights")]
    with ThreadPoolExecutor() as pool:
        read = pool.submit(pipe.read_bytes)
        client.download("/jobs/job_00000000000000000000000001/checkpoints/best", pipe)
        assert read.result(10) == b"weights"
    assert pipe.is_fifo()
    client.download("/jobs/job_00000000000000000000000001/checkpoints/best", link)
    assert link.is_symlink()
    assert real.read_bytes() == b"weights"
    assert len(list(tmp_path.iterdir())) == 3


def test_a_download_that_breaks_off_is_made_again(script: Script, client: Client, tmp_path: Path) -> None:
    def half(request: BaseHTTPRequestHandler, body: bytes) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "7")
        request.end_headers()
        request.wfile.write(b"wei")
        request.close_connection = True

    script.answers = [half, answer(b"weights")]
    assert client.download("/file", tmp_path / "file").read_bytes() == b"weights"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["../../evil", "/etc/evil", "..", ".profile"])
def test_a_name_from_the_service_cannot_leave_the_folder(
    script: Script, client: Client, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    script.answers = [answer(b"x", Content_Disposition=f'attachment; filename="{name}"')]
    path = client.download("/file", folder)
    assert path.resolve().parent == folder
    assert not path.name.startswith(".")


@pytest.mark.parametrize("name", ["../../escaped.txt", "/etc/passwd", "..", ".hidden", "a\\b", ""])
def test_a_name_from_a_service_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    assert (tmp_path / safe_name(name)).parent == tmp_path
    assert not safe_name(name).startswith(".")


def test_the_client_retries_when_it_is_told_to(script: Script, client: Client) -> None:
    busy = answer({"code": "too_many_requests"}, 429, Retry_After="1")
    script.answers = [busy, answer({"id": "j"})]
    began = time.monotonic()
    client.cancel(JOB)  # no repetition of a request that did not arrive
    assert time.monotonic() - began >= 1
    assert [request[:2] for request in script.requests] == [("POST", f"/jobs/{JOB}/cancel")] * 2


def test_a_job_is_named_wherever_a_job_is_taken(script: Script, client: Client) -> None:
    named = {"id": JOB, "name": "first", "kind": "classifier", "status": "succeeded"}
    for act in (client.cancel, client.results, client.checkpoints):
        script.requests.clear()
        script.answers = [answer({"data": [named], "has_more": False}), answer(named), answer({"id": JOB, "data": []})]
        act("first")
        assert script.requests[0][:2] == ("GET", "/jobs?limit=100&name=first")
        assert script.requests[-1][1].startswith(f"/jobs/{JOB}/")


QUEUED = "ann has 2 queued jobs, the limit of TAPELINE_OWNER_QUEUED; ask the operator for a higher limit"


def test_the_terminal_says_why_it_waits_and_how_that_ends(script: Script) -> None:
    problem = {"code": "quota_exceeded", "detail": QUEUED, "title": "Exhausted."}
    busy = answer(problem, 429, Retry_After="1")
    script.answers = [busy] * 4
    told = CliRunner().invoke(main, ["--server", script.url, "train", "-"], input='{"kind": "classifier"}')
    assert told.exit_code == 1
    wait = f"{QUEUED}; trying again in 1 s (Ctrl-C stops)"
    assert told.stderr.splitlines()[:3] == [wait] * 3
    end = f"{QUEUED}; gave up after 4 attempts; cancel a job with: tapeline cancel JOB"
    assert end in " ".join(told.stderr.split())
    assert told.stdout == ""


def test_nobody_waits_for_an_hour(script: Script, client: Client) -> None:
    script.answers = [answer({"code": "too_many_requests", "detail": "later"}, 429, Retry_After="3600")]
    with pytest.raises(ApiError, match="later"):
        client.get(JOB)
    assert len(script.requests) == 1


def test_the_key_comes_from_the_environment(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAPELINE_API_KEYS", "first, second")
    script.answers = [answer({"id": "j"}), answer({"id": "j"})]
    for key in (None, "given"):
        with Client(script.url, key) as client:
            client.get(JOB)
    assert [headers["Authorization"] for _, _, headers, _ in script.requests] == ["Bearer first", "Bearer given"]


def test_pictures_travel_in_base64_and_numbers_as_they_are(script: Script, client: Client, tmp_path: Path) -> None:
    picture = io.BytesIO()
    Image.new("L", (28, 28), 7).save(picture, "PNG")
    (tmp_path / "a.png").write_bytes(picture.getvalue())
    script.answers = [hang_up, answer({"classes": [1, 2, 3]})]  # a second request does no harm
    client.predict(JOB, [tmp_path / "a.png", picture.getvalue(), [[0.5]]], checkpoint=3, fit=True)
    body = json.loads(script.requests[-1][3])
    assert body["images"] == [base64.b64encode(picture.getvalue()).decode()] * 2 + [[[0.5]]]
    assert (body["checkpoint"], body["fit"], body["invert"]) == (3, True, False)


def test_a_picture_comes_with_its_checkpoint(script: Script, client: Client) -> None:
    script.answers = [answer(b"GIF89a", Tapeline_Checkpoint="12")]
    made = client.generate_picture(JOB, format="film", seeds=[1, 2], steps=5)
    assert (made.data, made.checkpoint) == (b"GIF89a", 12)
    assert json.loads(script.requests[0][3]) == {"format": "film", "seeds": [1, 2], "steps": 5}
