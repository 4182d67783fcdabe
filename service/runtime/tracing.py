"""Traces of requests and of attempts to train a job, exported over OTLP if ``OTEL_EXPORTER_OTLP_ENDPOINT`` is set.

Spans are recorded without OpenTelemetry. The web process and the worker's supervisor export them, with its SDK and in a
thread of the SDK; a training process reports its spans to its supervisor, so it has no exporter to start or to flush,
and a killed one loses only the spans that have not ended. Traceparents are texts, as in W3C Trace Context.

Cost: a hundred lines that the SDK has, too; spans of other libraries do not appear.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any, Final, Self

import structlog

from service.errors import SettingsError
from tapeline.version import VERSION

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL: Final = "http/protobuf"
_TRACEPARENT: Final = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)
_SAMPLED: Final = 0x01
_EXPORT_INTERVAL_MS: Final = 1000
"""Unless ``OTEL_BSP_SCHEDULE_DELAY`` says otherwise: a process that is killed loses the spans of this time."""
_WARNING_INTERVAL_S: Final = 60.0
_HEADERS_LOGGER: Final = "opentelemetry.util.re"
_HEADERS_REMEDY: Final = (
    "write OTEL_EXPORTER_OTLP_HEADERS or OTEL_EXPORTER_OTLP_TRACES_HEADERS as name=value,name=value, "
    "with URL-encoded values"
)
STOP_TIMEOUT_S: Final = 2.0
"""How long a process that exits waits for its last spans to be sent."""

Attributes = Mapping[str, str | int | float | bool]
log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A span that has ended. Times are nanoseconds since 1970."""

    name: str
    trace_id: str
    span_id: str
    start_ns: int
    end_ns: int
    kind: str = "internal"
    """``internal``, ``server`` or ``consumer``."""
    parent_id: str | None = None
    """The id of the parent in the same trace."""
    link: str | None = None
    """The traceparent of a span in another trace."""
    error: str | None = None
    attributes: dict[str, str | int | float | bool] = field(default_factory=dict)


Sink = Callable[[Span], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The position in a trace: spans that begin here become children of the span ``span_id``."""

    trace_id: str
    span_id: str
    is_sampled: bool = True
    sink: Sink = lambda span: None
    inherited: Attributes = field(default_factory=dict)
    """Attributes of every span below."""

    @classmethod
    def of(cls, traceparent: str) -> Self:
        """The position that a valid traceparent names."""
        _, trace_id, span_id, flags = traceparent.split("-")
        return cls(trace_id=trace_id, span_id=span_id, is_sampled=bool(int(flags, 16) & _SAMPLED))

    @property
    def traceparent(self) -> str:
        """The position as a header."""
        return f"00-{self.trace_id}-{self.span_id}-{int(self.is_sampled):02x}"


class OpenSpan:
    """A span that has begun; ``end`` reports it, unless its trace is not sampled."""

    def __init__(
        self,
        name: str,
        context: Context,
        attributes: Attributes,
        *,
        kind: str = "internal",
        parent_id: str | None = None,
        link: str | None = None,
        start_ns: int | None = None,
    ) -> None:
        self.context, self.attributes = context, {**context.inherited, **attributes}
        self.error: str | None = None
        self._name, self._kind, self._parent_id, self._link = name, kind, parent_id, link
        self._start_ns = time.time_ns() if start_ns is None else start_ns

    def end(self) -> None:
        """Report the span."""
        if self.context.is_sampled:
            self.context.sink(
                Span(
                    name=self._name,
                    trace_id=self.context.trace_id,
                    span_id=self.context.span_id,
                    start_ns=self._start_ns,
                    end_ns=max(time.time_ns(), self._start_ns),
                    kind=self._kind,
                    parent_id=self._parent_id,
                    link=self._link,
                    error=self.error,
                    attributes=self.attributes,
                )
            )


_current: Final[ContextVar[Context | None]] = ContextVar("trace", default=None)
_exporter: _Exporter | None = None
_stop_lock: Final = threading.Lock()


def read_traceparent(header: str | None) -> str | None:
    """The traceparent of a request, in the format of version 00; ``None`` if there is none, or it is not valid."""
    match = _TRACEPARENT.fullmatch(header or "")
    if match is None or (match[1] == "00" and match[5] is not None):
        return None
    context = Context(trace_id=match[2], span_id=match[3], is_sampled=bool(int(match[4], 16) & _SAMPLED))
    return context.traceparent


def trace_id_of(traceparent: str | None) -> str | None:
    """The id of the trace that a traceparent belongs to."""
    return Context.of(traceparent).trace_id if traceparent is not None else None


def named(traceparent: str | None) -> dict[str, str]:
    """The trace as a field of events and log lines, if there is one."""
    return {"trace_id": Context.of(traceparent).trace_id} if traceparent is not None else {}


def is_exporting() -> bool:
    """Whether this process exports spans."""
    return _exporter is not None


def begin_request(name: str, sent: str | None, attributes: Attributes) -> OpenSpan | None:
    """Begin the span of a request and make it current; ``None`` if this process exports none.

    Args:
        sent: the traceparent of the client.
    """
    if _exporter is None:
        return None
    parent = Context.of(sent) if sent is not None else None
    context = _exporter.new_context(parent, name)
    _current.set(context)
    return OpenSpan(name, context, attributes, kind="server", parent_id=parent.span_id if parent is not None else None)


def end_request(span: OpenSpan) -> None:
    """End the span of a request."""
    _current.set(None)
    span.end()


def new_attempt(requested_by: str | None) -> str | None:
    """The traceparent of a new attempt; ``None`` if this process exports no spans.

    Args:
        requested_by: the traceparent of the request that queued the job. An attempt is sampled if that was.
    """
    if _exporter is None:
        return None
    request = Context.of(requested_by) if requested_by is not None else None
    if request is not None and not _exporter.is_child:
        return replace(request, trace_id=secrets.token_hex(16), span_id=secrets.token_hex(8)).traceparent
    return _exporter.new_context(request, "attempt").traceparent


@contextmanager
def attempt(trace: str | None, requested_by: str | None, since: float, attributes: Attributes) -> Iterator[OpenSpan]:
    """The root span of an attempt in the supervisor, which began with its claim.

    Args:
        trace: of ``new_attempt``.
        since: when the claim was requested, by the monotonic clock.
        attributes: of this span, and those below.
    """
    exporter = _exporter
    if exporter is None or trace is None:
        yield _DISCARDED
        return
    context = replace(Context.of(trace), sink=exporter.export, inherited=attributes)
    is_child = context.trace_id == trace_id_of(requested_by)
    span = OpenSpan(
        "attempt",
        context,
        {},
        kind="consumer",
        parent_id=Context.of(requested_by).span_id if is_child and requested_by is not None else None,
        link=None if is_child else requested_by,
        start_ns=_wall_clock(since),
    )
    with _under(span):
        yield span


@contextmanager
def below(trace: str | None, sink: Sink, attributes: Attributes) -> Iterator[None]:
    """Give the spans of a training process to ``sink``, as children of its attempt."""
    if trace is None:
        yield
        return
    _current.set(replace(Context.of(trace), sink=sink, inherited=attributes))
    try:
        yield
    finally:
        _current.set(None)


@contextmanager
def span(name: str, attributes: Attributes | None = None, *, since: float | None = None) -> Iterator[None]:
    """A span around a block, as a child of the current span; without one, nothing. An exception marks it as an error,
    unless its attribute ``is_failure`` is false.

    Args:
        since: when it began, by the monotonic clock, if that was before the block.
    """
    context = _current.get()
    if context is None or not context.is_sampled:
        yield
        return
    inner = OpenSpan(
        name,
        replace(context, span_id=secrets.token_hex(8)),
        attributes or {},
        parent_id=context.span_id,
        start_ns=None if since is None else _wall_clock(since),
    )
    with _under(inner):
        yield


@contextmanager
def _under(span: OpenSpan) -> Iterator[None]:
    before = _current.get()
    _current.set(span.context)
    try:
        yield
    except BaseException as error:
        if getattr(error, "is_failure", True):
            span.error = span.error or type(error).__name__
        raise
    finally:
        _current.set(before)
        span.end()


def _wall_clock(monotonic: float) -> int:
    return time.time_ns() - int(1e9 * (time.monotonic() - monotonic))


_DISCARDED: Final = OpenSpan("", Context(trace_id="", span_id="", is_sampled=False), {})


def faults(environ: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with the variables of OpenTelemetry, if they ask for traces."""
    variable = _endpoint(environ)
    if variable is None:
        return
    if not environ[variable].strip().startswith(("http://", "https://")):
        yield f"{variable} must be http://host:port or https://host:port"
    name = next((name for name in _PROTOCOLS if environ.get(name, "").strip()), None)
    if name is not None and environ[name].strip() != _PROTOCOL:
        yield f"{name} must be {_PROTOCOL}, the only protocol that is supported, not {environ[name]!r}"
    if not _is_installed():
        yield (
            f"{variable} needs OpenTelemetry: pip install 'tapeline[otel]', or, to run without traces, set "
            "OTEL_SDK_DISABLED=true"
        )


def _endpoint(environ: Mapping[str, str]) -> str | None:
    """The variable that asks for traces."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    if environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none":
        return None
    return next((name for name in _ENDPOINTS if environ.get(name, "").strip()), None)


def _is_installed() -> bool:
    try:
        return all(find_spec(f"opentelemetry.{name}") for name in ("sdk", "exporter.otlp.proto.http"))
    except ModuleNotFoundError:
        return False


def start(process: str, environ: Mapping[str, str], *, is_child: bool = False) -> None:
    """Export the spans of this process, if the environment asks for it. Call it after the last fork.

    Args:
        process: ``web`` or ``worker``.
        is_child: whether attempts continue the trace of the request that queued them.

    Raises:
        SettingsError: OpenTelemetry refuses its variables.
    """
    global _exporter
    if _endpoint(environ) is None or _exporter is not None:
        return
    try:
        _exporter = _Exporter(process, is_child=is_child)
    except ValueError as error:
        raise SettingsError(f"the OTEL_ variables are not valid: {error}") from error


def stop(timeout_s: float = STOP_TIMEOUT_S) -> None:
    """Send the last spans, for at most this long; spans of this process that end later are dropped."""
    global _exporter
    with _stop_lock:  # a second caller waits for the first
        exporter, _exporter = _exporter, None
        if exporter is not None:
            closing = threading.Thread(target=exporter.close, name="last spans", daemon=True)
            closing.start()
            closing.join(timeout_s)


def export(span: Span) -> None:
    """Export a span that another process reported."""
    if (exporter := _exporter) is not None:
        exporter.export(span)


class _Exporter:
    """Sends spans to the collector, from a thread of the SDK. A full queue drops spans, so nothing waits for it."""

    def __init__(self, process: str, *, is_child: bool) -> None:
        from opentelemetry import trace
        from opentelemetry.context import Context as Nowhere
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON

        logger = logging.getLogger("opentelemetry")
        logger.handlers[:], logger.propagate = [_Warnings()], False
        about = {"service.name": f"tapeline-{process}", "service.version": VERSION, "host.name": socket.gethostname()}
        resource = Resource({**about, "process.pid": os.getpid()}).merge(OTELResourceDetector().detect())
        delay_ms = None if os.environ.get("OTEL_BSP_SCHEDULE_DELAY") else _EXPORT_INTERVAL_MS
        self.is_child, self._nowhere = is_child, Nowhere()
        self._trace, self._ids = trace, _recorded_ids()
        self._sampler = TracerProvider(shutdown_on_exit=False).sampler  # that of OTEL_TRACES_SAMPLER
        # Whether a trace is sampled is decided when it begins: all spans that arrive here are exported.
        self._provider = TracerProvider(ALWAYS_ON, resource, id_generator=self._ids, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), schedule_delay_millis=delay_ms))
        self._tracer = self._provider.get_tracer("tapeline", VERSION)

    def new_context(self, parent: Context | None, name: str) -> Context:
        """The position of a new span: in the trace of its parent, or in a new one."""
        trace_id = parent.trace_id if parent is not None else secrets.token_hex(16)
        above = self._above(parent, is_remote=True) if parent is not None else None
        from opentelemetry.sdk.trace.sampling import Decision

        decision = self._sampler.should_sample(above, int(trace_id, 16), name).decision
        return Context(
            trace_id=trace_id, span_id=secrets.token_hex(8), is_sampled=decision is not Decision.DROP, sink=self.export
        )

    def export(self, span: Span) -> None:
        """Queue a span. An error is logged: no request and no job fails because of its trace."""
        try:
            self._queue(span)
        except Exception as error:  # noqa: BLE001 - the SDK names no errors, and no job may fail by its trace
            log.warning("a span was dropped", span=span.name, error=repr(error))

    def _queue(self, span: Span) -> None:
        trace = self._trace
        link = Context.of(span.link) if span.link is not None else None
        parent = Context(trace_id=span.trace_id, span_id=span.parent_id) if span.parent_id is not None else None
        self._ids.next = int(span.trace_id, 16), int(span.span_id, 16)
        item = self._tracer.start_span(
            span.name,
            context=self._above(parent, is_remote=span.kind != "internal") if parent is not None else self._nowhere,
            kind=trace.SpanKind[span.kind.upper()],
            attributes=span.attributes,
            links=[trace.Link(self._reference(link, is_remote=True))] if link is not None else None,
            start_time=span.start_ns,
        )
        if span.error is not None:
            item.set_status(trace.StatusCode.ERROR, span.error)
        item.end(span.end_ns)

    def close(self) -> None:
        """Send what is queued."""
        self._provider.shutdown()

    def _above(self, parent: Context, *, is_remote: bool) -> Any:
        reference = self._reference(parent, is_remote=is_remote)
        return self._trace.set_span_in_context(self._trace.NonRecordingSpan(reference))

    def _reference(self, context: Context, *, is_remote: bool) -> Any:
        flags = self._trace.TraceFlags(_SAMPLED if context.is_sampled else 0)
        return self._trace.SpanContext(int(context.trace_id, 16), int(context.span_id, 16), is_remote, flags)


def _recorded_ids() -> Any:
    from opentelemetry.sdk.trace.id_generator import IdGenerator

    class RecordedIds(IdGenerator, threading.local):
        """Gives a span the ids under which it was recorded."""

        next: tuple[int, int] = (0, 0)

        def generate_trace_id(self) -> int:
            return self.next[0]

        def generate_span_id(self) -> int:
            return self.next[1]

    return RecordedIds()


class _Warnings(logging.Handler):
    """Repeats warnings of the SDK in our log, at most one per minute: a collector may be away for days."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._silent_until = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        """Log, or drop."""
        now = time.monotonic()
        if now >= self._silent_until:
            self._silent_until = now + _WARNING_INTERVAL_S
            if record.name == _HEADERS_LOGGER:
                # The message contains the header, which is a secret.
                log.warning("headers for the collector are ignored", remedy=_HEADERS_REMEDY)
            else:
                log.warning("traces are not exported", error=record.getMessage())
