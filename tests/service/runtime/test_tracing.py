from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from service.errors import SettingsError
from service.runtime import tracing
from service.runtime.settings import Settings
from service.runtime.tracing import Span
from tests.otlp_receiver import Collector, collector
from workers.messages import StopRequested

TRACE, PARENT = "ab" * 16, "cd" * 8
SENT = f"00-{TRACE}-{PARENT}-01"
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
TRACES_PROTOCOL = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collector() as running:
        monkeypatch.setenv(ENDPOINT, running.url)
        yield running
        tracing.stop()


def start(*, is_child: bool = False) -> None:
    import os

    tracing.start("worker", os.environ, is_child=is_child)


@pytest.mark.parametrize(
    ("header", "read"),
    [
        (SENT, SENT),
        (f"00-{TRACE}-{PARENT}-00", f"00-{TRACE}-{PARENT}-00"),
        (f"00-{TRACE}-{PARENT}-ff", SENT),  # unknown flags are not passed on
        (f"cc-{TRACE}-{PARENT}-01-what-comes-later", SENT),
    ],
)
def test_a_valid_traceparent_is_read(header: str, read: str) -> None:
    assert tracing.read_traceparent(header) == read


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "00",
        SENT.upper(),
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{PARENT}-01-more",
        f"00-{TRACE}-{PARENT}-0",
        f"{SENT},{SENT}",
        f"{SENT}\n",
        f" {SENT}",
    ],
)
def test_an_invalid_traceparent_is_ignored(header: str | None) -> None:
    assert tracing.read_traceparent(header) is None


def test_spans_of_a_training_process_nest_below_their_attempt_and_name_the_job() -> None:
    spans: list[Span] = []
    since = time.monotonic() - 5
    with tracing.below(SENT, spans.append, {"tapeline.job.id": "job_1"}):
        with tracing.span("epoch", {"tapeline.epoch": 1}, since=since), tracing.span("commit"):
            pass
        with pytest.raises(ZeroDivisionError), tracing.span("load"):
            raise ZeroDivisionError
    with tracing.span("of no attempt"):
        pass
    commit, epoch, load = spans
    assert {span.trace_id for span in spans} == {TRACE}
    assert (epoch.parent_id, commit.parent_id, load.parent_id) == (PARENT, epoch.span_id, PARENT)
    assert epoch.attributes == {"tapeline.job.id": "job_1", "tapeline.epoch": 1}
    assert commit.attributes == {"tapeline.job.id": "job_1"}
    assert epoch.end_ns - epoch.start_ns >= 5e9
    assert (epoch.error, load.error) == (None, "ZeroDivisionError")


def test_a_stop_is_no_error_of_the_spans_that_it_ends() -> None:
    spans: list[Span] = []
    with tracing.below(SENT, spans.append, {}), pytest.raises(StopRequested), tracing.span("load"):
        raise StopRequested
    assert [span.error for span in spans] == [None]


def test_nothing_is_recorded_of_a_trace_that_is_not_sampled() -> None:
    spans: list[Span] = []
    with tracing.below(f"00-{TRACE}-{PARENT}-00", spans.append, {}), tracing.span("epoch"):
        pass
    assert spans == []


@pytest.mark.stack
def test_without_an_endpoint_no_exporter_is_imported_and_attempts_have_no_trace() -> None:
    # The client of Redis imports the metrics of OpenTelemetry, where installed; training processes import neither.
    code = (
        "import sys, os; from service.runtime import tracing; from service.runtime.settings import Settings;"
        "Settings.from_env(os.environ, cores=1); tracing.start('worker', os.environ);"
        "assert tracing.new_attempt(None) is None;"
        "import workers.supervisor.preload;"
        "print([name for name in sys.modules if name.startswith('opentelemetry')]);"
        "import service.web.app, workers.app;"
        "exporting = ('opentelemetry.exporter', 'opentelemetry.sdk.trace');"
        "print([name for name in sys.modules if name.startswith(exporting)])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True, env={}) == "[]\n[]\n"


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({ENDPOINT: "collector:4318"}, f"{ENDPOINT} must be http://host:port or https://host:port"),
        (
            {ENDPOINT: "http://c:4318", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf, the only protocol that is supported, not 'grpc'",
        ),
        (
            {ENDPOINT: "http://c:4318", TRACES_PROTOCOL: "http/json", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
            f"{TRACES_PROTOCOL} must be http/protobuf",
        ),
        ({"TAPELINE_OTEL_PARENT": "both"}, "TAPELINE_OTEL_PARENT must be link or child"),
    ],
)
def test_variables_that_cannot_work_are_refused(environ: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Settings.from_env(environ, cores=1)


def test_the_protocol_of_traces_precedes_that_of_everything() -> None:
    environ = {ENDPOINT: "http://c:4318", TRACES_PROTOCOL: "http/protobuf", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    assert list(tracing.faults(environ)) == []


def test_without_the_extra_the_message_has_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk", None)
    with pytest.raises(SettingsError, match=r"needs OpenTelemetry: pip install 'tapeline\[otel\]'"):
        Settings.from_env({ENDPOINT: "http://collector:4318"}, cores=1)
    for off in ({"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}):
        Settings.from_env({ENDPOINT: "http://collector:4318", **off}, cores=1)


@pytest.mark.parametrize("is_child", [False, True])
def test_an_attempt_is_linked_to_its_request_or_continues_its_trace(receiver: Collector, is_child: bool) -> None:
    start(is_child=is_child)
    trace = tracing.new_attempt(SENT)
    assert trace is not None
    with tracing.attempt(trace, SENT, time.monotonic() - 2, {"tapeline.job.id": "job_1"}) as span:
        span.attributes["tapeline.outcome"] = "succeeded"
        with tracing.span("claim"):
            pass
    tracing.stop()
    claim, root = receiver.spans
    assert root.trace_id == claim.trace_id == tracing.trace_id_of(trace)
    assert (root.trace_id == TRACE) is is_child
    assert (root.parent_id, root.links) == ((PARENT, []) if is_child else ("", [(TRACE, PARENT)]))
    assert claim.parent_id == root.span_id
    assert root.attributes == {"tapeline.job.id": "job_1", "tapeline.outcome": "succeeded"}
    assert root.resource["service.name"] == "tapeline-worker"
    assert root.end_ns - root.start_ns >= 2e9


def test_the_sampler_of_the_environment_decides_about_requests_and_attempts_follow(
    receiver: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    start()
    for sent in (None, SENT):
        request = tracing.begin_request("POST /jobs", sent, {})
        assert request is not None
        tracing.end_request(request)
        trace = tracing.new_attempt(request.context.traceparent)
        with tracing.attempt(trace, request.context.traceparent, time.monotonic(), {}):
            pass
    tracing.stop()
    assert [span.name for span in receiver.spans] == ["POST /jobs", "attempt"]
    assert receiver.spans[0].parent_id == PARENT
    assert receiver.spans[0].resource["service.name"] == "mine"


def test_a_collector_that_does_not_listen_is_one_line_of_the_log(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    start()
    for _ in range(3):
        with tracing.attempt(tracing.new_attempt(None), None, time.monotonic(), {}):
            pass
    tracing.stop()
    output = "".join(capfd.readouterr())
    assert output.count("traces are not exported") == 1
    assert len(output.splitlines()) == 1


def test_the_token_in_a_header_that_the_sdk_refuses_is_not_logged(
    receiver: Collector, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "Authorization: Bearer the-token-of-the-collector")
    start()
    output = "".join(capfd.readouterr())
    assert "headers for the collector are ignored" in output
    assert "URL-encoded" in output
    assert "the-token" not in output


def test_a_span_that_the_sdk_refuses_is_dropped(receiver: Collector, capfd: pytest.CaptureFixture[str]) -> None:
    start()
    good = Span(name="load", trace_id=TRACE, span_id=PARENT, start_ns=1, end_ns=2)
    tracing.export(replace(good, kind="unknown"))
    tracing.export(good)
    tracing.stop()
    assert [span.name for span in receiver.spans] == ["load"]
    assert "a span was dropped" in "".join(capfd.readouterr())
