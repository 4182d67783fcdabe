"""A client of the HTTP API: ``Client("http://127.0.0.1:8000").submit({"kind": "classifier"})``."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self, TypedDict, Unpack
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import httpx
from httpx_sse import EventSource, SSEError

from service.contract.settings import is_loopback
from service.contract.states import TERMINAL

_ATTEMPTS: Final = 4
_FIRST_PAUSE_S: Final = 0.1
_STREAM_SILENCE_S: Final = 45.0
"""The service says something every 15 s; a stream that is silent for longer is dead."""
_UPLOAD_TIMEOUT_S: Final = 180.0
"""Reading a large upload takes the service a while after the last byte has come."""
_CHUNK_BYTES: Final = 1 << 18
_BUSY: Final = frozenset({502, 503, 504})
_TOO_MANY: Final = 429
_LONGEST_WAIT_S: Final = 30.0
"""For a service that says when to come again; it is taken at its word up to here."""


class ClientError(Exception):
    """Base of all errors that the client raises."""


class ServerUnreachable(ClientError, ConnectionError):
    """Nobody answers there."""

    def __init__(self, server: str, reason: str) -> None:
        start = "; start it with: tapeline up" if is_loopback(httpx.URL(server).host) else ""
        super().__init__(f"nobody answers at {server} ({reason}){start}")
        self.server, self.reason = server, reason


class ApiError(ClientError):
    """The service refused; ``problem`` is its whole answer (RFC 9457)."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        self.status = status
        self.problem = dict(problem)
        self.code = str(problem.get("code", ""))
        self.detail = str(problem.get("detail") or problem.get("title") or f"HTTP status {status}")
        self.errors: Sequence[Mapping[str, Any]] = problem.get("errors") or []
        """What is wrong with a spec: ``pointer``, ``detail``, ``code`` and perhaps ``suggestion`` of each fault."""
        # With faults, the detail is their list once more.
        headline = str(problem.get("title") or self.detail) if self.errors else self.detail
        super().__init__("\n".join([headline, *(f"  {_fault(error)}" for error in self.errors)]))


class DownloadDamaged(ClientError):
    """What arrived is not what was sent."""


Which = Literal["best", "latest"] | int
"""A checkpoint: the best, the latest, or that of an epoch."""


class Wish(TypedDict, total=False):
    """What a GAN should make images from; see ``POST /jobs/{id}/generate``."""

    count: int
    """So many points of ``seed``; by default 16."""
    seed: int
    seeds: Sequence[int]
    """The first point of each of these."""
    latent: Sequence[Sequence[float]]
    """These points."""
    steps: int
    """Walk from each point to the next in so many steps."""
    checkpoint: Which
    """By default the best."""
    scale: int
    """Pixels of a picture for one of the image's, along each side."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that a GAN made."""

    data: bytes
    checkpoint: int
    """The epoch whose checkpoint made it."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a job's stream."""

    type: str
    """``snapshot``, ``status``, ``metrics``, ``sample``, ``checkpoint``, ``health``, ``log``, ``end``, ``progress``."""
    data: Mapping[str, Any]
    seq: int | None = None
    """Its number in the job's log; ``None`` for ``snapshot`` and ``progress``, which are not kept."""


class Client:
    """Calls one service. Not to be shared between threads.

    Args:
        server: for example ``http://127.0.0.1:8000``.
        key: an API key, where the service asks for one; by default the first of TAPELINE_API_KEYS of the
            environment.

    Every method raises ``ServerUnreachable`` where nobody answers and ``ApiError`` where the service refuses.
    What is safe to repeat is repeated a few times before that.
    """

    def __init__(self, server: str, key: str | None = None) -> None:
        self.server = server.rstrip("/")
        self.key = key or _key_of_environment()
        url = httpx.URL(self.server)
        if url.scheme not in ("http", "https") or not url.host:
            raise ValueError(f"a server is named like http://127.0.0.1:8000, not {server!r}")
        headers = {"User-Agent": "tapeline-client"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        # A proxy on the way to this very machine would only be in the way.
        self._http = httpx.Client(
            base_url=self.server,
            headers=headers,
            timeout=httpx.Timeout(30, connect=5),
            trust_env=not is_loopback(url.host),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def submit(self, spec: Mapping[str, Any] | bytes, *, idempotency_key: str | None = None) -> dict[str, Any]:
        """Make a job.

        Args:
            spec: as a document, or as JSON text that is sent as it is.
            idempotency_key: a name for this request; repeated with the same key and spec, it makes one job and
                gives the same answer. By default a new one, so that the client itself can try again.
        """
        headers = {"Idempotency-Key": idempotency_key or uuid4().hex}
        return self._json("POST", "/jobs", **_body(spec, headers), repeatable=True)

    def dry_run(self, spec: Mapping[str, Any] | bytes) -> dict[str, Any]:
        """The spec with every value filled in, and what it would cost; nothing is stored."""
        return self._json("POST", "/jobs", **_body(spec, {}), params={"dry_run": "true"}, repeatable=True)

    def get(self, job_id: str) -> dict[str, Any]:
        """One job."""
        return self._json("GET", _job(job_id))

    def list(self, *, limit: int | None = None, **filters: str) -> Iterator[dict[str, Any]]:
        """Jobs, the newest first, fetched page by page.

        Args:
            limit: stop after so many.
            filters: ``status``, ``kind``, ``tag``, ``q``, ``sort``, as the API has them.
        """
        left = limit
        params: dict[str, str] = dict(filters)
        while left is None or left > 0:
            page = self._json("GET", "/jobs", params=params | {"limit": str(min(left or 100, 100))})
            yield from page["data"]
            if not page["has_more"]:
                return
            left = None if left is None else left - len(page["data"])
            params["cursor"] = page["next_cursor"]

    def cancel(self, job_id: str) -> dict[str, Any]:
        """End a waiting job now, a running one between two batches."""
        return self._json("POST", f"{_job(job_id)}/cancel")

    def pause(self, job_id: str) -> dict[str, Any]:
        """Stop a running job between two batches; its last checkpoint stays."""
        return self._json("POST", f"{_job(job_id)}/pause")

    def resume(self, job_id: str) -> dict[str, Any]:
        """Let a paused job go on from its last checkpoint."""
        return self._json("POST", f"{_job(job_id)}/resume")

    def retry(self, job_id: str) -> dict[str, Any]:
        """Let a failed job go on from its last checkpoint."""
        return self._json("POST", f"{_job(job_id)}/retry")

    def fork(
        self,
        job_id: str,
        overrides: Mapping[str, Any] | None = None,
        *,
        checkpoint: str | int = "latest",
        idempotency_key: str | None = None,
    ) -> dict[str, Any]:
        """Make a new job that goes on from a checkpoint of this one; the job that was made.

        Args:
            overrides: what to do otherwise from there on, as fields of a spec.
            checkpoint: ``best``, ``latest`` or the number of an epoch.
            idempotency_key: as in ``submit``.
        """
        body = {"checkpoint": checkpoint, "overrides": dict(overrides or {})}
        headers = {"Idempotency-Key": idempotency_key or uuid4().hex}
        return self._json("POST", f"{_job(job_id)}/fork", **_body(body, headers), repeatable=True)

    def reproduce(self, job_id: str, *, idempotency_key: str | None = None) -> dict[str, Any]:
        """Train a job that succeeded once more; the new job's ``reproduction`` says whether every bit is the same."""
        headers = {"Idempotency-Key": idempotency_key or uuid4().hex}
        return self._json("POST", f"{_job(job_id)}/reproduce", headers=headers, repeatable=True)

    def change(self, job_id: str, **fields: Any) -> dict[str, Any]:
        """Set a job's ``name``, ``tags`` or ``priority``; ``None`` clears."""
        return self._json("PATCH", _job(job_id), **_body(fields, {}), repeatable=True)

    def delete(self, job_id: str) -> None:
        """Remove a finished job with all its files."""
        with self._response("DELETE", _job(job_id)):
            pass

    def metrics(self, job_id: str) -> dict[str, Any]:
        """``epochs`` and, by the metric's name, ``series`` of the same length."""
        return self._json("GET", f"{_job(job_id)}/metrics")

    def results(self, job_id: str) -> dict[str, Any]:
        """Final and best metrics, checkpoints, samples, plots, all artifacts."""
        return self._json("GET", f"{_job(job_id)}/results")

    def checkpoints(self, job_id: str) -> dict[str, Any]:
        """The checkpoints that are there."""
        return self._json("GET", f"{_job(job_id)}/checkpoints")

    def predict(
        self,
        job_id: str,
        images: Sequence[Path | bytes | Sequence[Any]],
        *,
        checkpoint: Which = "best",
        fit: bool = False,
        invert: bool = False,
        explain: bool = False,
    ) -> dict[str, Any]:
        """What a classifier takes images for: ``classes``, and ``probabilities`` of each.

        Args:
            images: PNG files, their bytes, or rows of numbers in [0, 1], 0 being black.
            fit: cut drawings out, and centre them as MNIST's digits are.
            invert: they are dark on light.
            explain: also ``saliency``, how each pixel moves the class that was found.
        """
        body = {"images": [_image(image) for image in images], "checkpoint": checkpoint}
        body |= {"fit": fit, "invert": invert, "explain": explain}
        return self._json("POST", f"{_job(job_id)}/predict", **_body(body, {}), repeatable=True)

    def generate(
        self,
        job_id: str,
        *,
        format: Literal["png", "array"] = "array",  # noqa: A002 - the API's name for it
        with_latent: bool = False,
        **wish: Unpack[Wish],
    ) -> dict[str, Any]:
        """Let a GAN make ``images``, as rows of numbers in [0, 1], or as PNGs in base64.

        Args:
            with_latent: also the points that they were made from, as ``latent``.
        """
        body = {"format": format, "with_latent": with_latent, **wish}
        return self._json("POST", f"{_job(job_id)}/generate", **_body(body, {}), repeatable=True)

    def generate_picture(
        self,
        job_id: str,
        *,
        format: Literal["grid", "film"] = "grid",  # noqa: A002 - the API's name for it
        **wish: Unpack[Wish],
    ) -> Picture:
        """Let a GAN make images, all in one PNG, or one after the other in a GIF."""
        options = _body({"format": format, **wish}, {})
        with self._response("POST", f"{_job(job_id)}/generate", repeatable=True, **options) as response:
            return Picture(response.read(), int(response.headers.get("Tapeline-Checkpoint", 0)))

    def wait(self, job_id: str, *, timeout_s: float | None = None, patience_s: float = 60.0) -> dict[str, Any]:
        """The job once it has ended.

        Args:
            patience_s: so long the service may be away.

        Raises:
            TimeoutError: it has not ended in time.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        answered = time.monotonic()
        while True:
            try:
                job = self.get(job_id)
            except ServerUnreachable:
                if time.monotonic() - answered > patience_s:
                    raise
                time.sleep(0.5)
                continue
            answered = time.monotonic()
            if job["status"] in TERMINAL:
                return job
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"job {job_id} is still {job['status']} after {timeout_s:g} s")
            time.sleep(0.5)

    def stream(self, job_id: str, *, after: int = 0, patience_s: float = 60.0) -> Iterator[Event]:
        """The job's events as they come, from number ``after`` on until the job has ended.

        A connection that breaks is made anew, and goes on where it broke: no event is lost or comes twice,
        except for ``snapshot`` and ``progress``, which have no number.

        Args:
            patience_s: so long the service may be away.
        """
        last, pause = after, _FIRST_PAUSE_S
        alone_since: float | None = None
        while True:
            reason = "the stream ended early"
            try:
                for event in self._stream_once(job_id, last):
                    if event is None:  # the log has nothing after this number, and never will
                        return
                    alone_since = None
                    if event.seq is not None:
                        if event.seq <= last:
                            continue
                        last, pause = event.seq, _FIRST_PAUSE_S
                    yield event
                    if event.type == "end":
                        return
            except (httpx.TransportError, SSEError) as error:
                reason = _reason(error)
            except ApiError as error:
                if error.status not in _BUSY and error.status != _TOO_MANY:
                    raise
                reason = error.detail
            now = time.monotonic()
            alone_since = alone_since or now
            if now - alone_since > patience_s:
                raise ServerUnreachable(self.server, reason)
            time.sleep(pause)
            pause = min(2 * pause, 5.0)

    def download(self, url: str, to: Path) -> Path:
        """Fetch a file, whole or not at all: its SHA-256 is compared with what the service says.

        Args:
            url: as the API gives it, or a path of the API.
            to: a file's name, or a folder, where the file gets the name that the service gives it.

        Raises:
            DownloadDamaged: what arrived is not what was sent.
        """
        pause = _FIRST_PAUSE_S
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with self._response("GET", url) as response:
                    return _store(response, to)
            except ServerUnreachable:
                if attempt == _ATTEMPTS:
                    raise
            time.sleep(pause)
            pause *= 2
        raise AssertionError  # the last attempt returns or raises

    def fetch(self, url: str) -> bytes:
        """A small file, into memory."""
        with self._response("GET", url) as response:
            return response.read()

    def _stream_once(self, job_id: str, last: int) -> Iterator[Event | None]:
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if last:
            headers["Last-Event-ID"] = str(last)
        timeout = httpx.Timeout(_STREAM_SILENCE_S, connect=5)
        with self._http.stream("GET", f"{_job(job_id)}/stream", headers=headers, timeout=timeout) as response:
            _check(response)
            if response.status_code == 204:
                yield None
                return
            for received in EventSource(response).iter_sse():
                # httpx-sse repeats the last id on events that have none of their own, as browsers do.
                kept = received.event not in ("snapshot", "progress")
                seq = int(received.id) if kept and received.id.isdecimal() else None
                with suppress(json.JSONDecodeError):
                    yield Event(received.event, json.loads(received.data), seq)

    def datasets(self) -> Sequence[dict[str, Any]]:
        """The data sets that a spec may name."""
        found: Sequence[dict[str, Any]] = self._json("GET", "/datasets")["data"]
        return found

    def upload(
        self, name: str, files: Mapping[str, Path], *, validation_fraction: float | None = None
    ) -> dict[str, Any]:
        """Send a data set.

        Args:
            files: by the field of the form: ``archive``, or ``images`` and ``labels``, perhaps with
                ``validation_images`` and ``validation_labels``. They are read while they are sent.
            validation_fraction: share of each class that is for validation, where no files are.
        """
        fields = {"name": name} | ({} if validation_fraction is None else {"validation_fraction": validation_fraction})
        with ExitStack() as opened:
            parts = {field: opened.enter_context(path.open("rb")) for field, path in files.items()}
            return self._json("POST", "/datasets", data=fields, files=parts, timeout=_UPLOAD_TIMEOUT_S)

    def delete_dataset(self, name: str) -> None:
        """Delete a data set that was sent, and that no job needs any more."""
        with self._response("DELETE", f"/datasets/{name}"):
            pass

    def _json(self, method: str, path: str, *, repeatable: bool = False, **options: Any) -> dict[str, Any]:
        with self._response(method, path, repeatable=repeatable, **options) as response:
            response.read()
            try:
                answer = response.json()
            except ValueError:
                answer = None
            if not isinstance(answer, dict):
                raise ClientError(f"what answers at {self.server} is not Tapeline")
            return answer

    @contextmanager
    def _response(
        self, method: str, path: str, *, repeatable: bool = False, **options: Any
    ) -> Iterator[httpx.Response]:
        repeatable = repeatable or method == "GET"
        request = self._http.build_request(method, path, **options)
        pause = _FIRST_PAUSE_S
        for attempt in range(1, _ATTEMPTS + 1):
            last = attempt == _ATTEMPTS
            try:
                response = self._http.send(request, stream=True)
            except httpx.TransportError as error:
                # Where no connection came about, nothing can have happened there.
                if last or not (repeatable or isinstance(error, httpx.ConnectError)):
                    raise ServerUnreachable(self.server, _reason(error)) from None
            else:
                # Who is told to come again later has not been listened to: that may be repeated whatever it was.
                turned_away = response.status_code == _TOO_MANY and _retry_after_s(response) <= _LONGEST_WAIT_S
                if last or not (turned_away or (repeatable and response.status_code in _BUSY)):
                    break
                response.close()
                if turned_away:
                    time.sleep(_retry_after_s(response))
            time.sleep(pause)
            pause *= 2
        try:
            _check(response)
            yield response
        except httpx.TransportError as error:  # it broke off in the middle
            raise ServerUnreachable(self.server, _reason(error)) from None
        finally:
            response.close()


def _job(job_id: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", job_id):
        raise ApiError(404, {"code": "job_not_found", "detail": f"{job_id!r} is no job's id"})
    return f"/jobs/{job_id}"


def _body(spec: Mapping[str, Any] | bytes, headers: Mapping[str, str]) -> dict[str, Any]:
    content = spec if isinstance(spec, bytes) else json.dumps(spec).encode()
    return {"content": content, "headers": {"Content-Type": "application/json", **headers}}


def _image(image: Path | bytes | Sequence[Any]) -> Any:
    data = image.read_bytes() if isinstance(image, Path) else image
    return base64.b64encode(data).decode() if isinstance(data, bytes) else data


def _key_of_environment() -> str | None:
    return os.environ.get("TAPELINE_API_KEYS", "").partition(",")[0].strip() or None


def _retry_after_s(response: httpx.Response) -> float:
    said = response.headers.get("Retry-After", "")
    return float(said) if said.isdecimal() else 0.0


def _check(response: httpx.Response) -> None:
    if response.is_success:
        return
    response.read()
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        problem = {"detail": f"{response.request.url} answers {response.status_code} {response.reason_phrase}"}
    raise ApiError(response.status_code, problem)


def _store(response: httpx.Response, to: Path) -> Path:
    target = to / _file_name(response) if to.is_dir() else to
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid4().hex[:8]}.part")
    digest = hashlib.sha256()
    try:
        with temporary.open("xb") as file:
            for chunk in response.iter_bytes(_CHUNK_BYTES):
                digest.update(chunk)
                file.write(chunk)
        expected = _stated_sha256(response)
        if expected is not None and expected != digest.digest():
            raise DownloadDamaged(f"{target.name}: its SHA-256 is {digest.hexdigest()}, not {expected.hex()} as stated")
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return target


def _stated_sha256(response: httpx.Response) -> bytes | None:
    found = re.search(r"sha-256=:([A-Za-z0-9+/=]+):", response.headers.get("Repr-Digest", ""))
    return base64.b64decode(found[1]) if found else None


def _file_name(response: httpx.Response) -> str:
    """The name that the service gives, made safe."""
    found = re.search(r'filename="?([^";]+)', response.headers.get("Content-Disposition", ""))
    name = found[1] if found else unquote(urlsplit(str(response.request.url)).path).rpartition("/")[2]
    return safe_name(name)


def safe_name(text: str) -> str:
    """A name that a service gave, reduced to what cannot leave a folder."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", text).lstrip(".") or "download"


def _fault(error: Mapping[str, Any]) -> str:
    place = error.get("pointer") or error.get("parameter") or "#"
    return f"{place}: {error.get('detail') or error.get('code')}"


def _reason(error: Exception) -> str:
    text = str(error).strip()
    match error:
        case httpx.ConnectTimeout():
            return "no connection in time"
        case httpx.TimeoutException():
            return "no answer in time"
        case httpx.ConnectError() if "refused" in text:
            return "connection refused"
        case _:
            return text or type(error).__name__
