"""One log format for every process: JSON lines on stderr, or plain text if stderr is a terminal."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, Final, TextIO, cast

import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor


_KEY: Final = re.compile(r"\b((?:tp[los]|tsh)_[0-9a-f]{12})_[0-9a-zA-Z]+")
"""Of keys, sessions, sign-in links and share links."""
_PASSWORD: Final = re.compile(r"(://[^:/?#\s@\"]*:)[^@/\s\"]+@")
_COMMON_PROCESSORS: Final[Sequence[Processor]] = (
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)
"""Add to every record the context, its level and its time."""


def redactor(secrets: Collection[str] = ()) -> Callable[[object, str, Any], str]:
    """The last processor of every log: removes keys and passwords from a line.

    Args:
        secrets: keys in other formats, chosen by an operator.
    """
    long_secrets = [secret for secret in secrets if len(secret) >= 8]  # shorter ones match parts of ordinary words
    variants = sorted(
        {variant for secret in long_secrets for variant in (secret, json.dumps(secret)[1:-1])}, key=len, reverse=True
    )

    def redact(logger: object, method: str, event: Any) -> str:
        line = str(event)
        if "tp" in line or "tsh_" in line:
            line = _KEY.sub(r"\1_...", line)
        if "://" in line:
            line = _PASSWORD.sub(r"\1...@", line)
        for secret in variants:
            line = line.replace(secret, "...")
        return line

    return redact


class FailsafeStream:
    """A log stream that drops lines that cannot be written (full disk), so that logging never fails the operation."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, text: str) -> int:
        """Write, or drop the text."""
        with suppress(OSError):
            return self._file.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush; errors are ignored."""
        with suppress(OSError):
            self._file.flush()


class Redacting(logging.Filter):
    """A filter that redacts the records of loggers with another format."""

    def __init__(self, secrets: Collection[str] = ()) -> None:
        super().__init__()
        self._redact = redactor(secrets)

    def filter(self, record: logging.LogRecord) -> bool:
        """Format the message and redact it."""
        record.msg, record.args = self._redact(None, "", record.getMessage()), None
        return True


def configure(process: str, *, level: int = logging.INFO) -> None:
    """Send the records of structlog and the standard library to stderr, each with the name of the process."""

    def name_process(logger: object, method: str, event: EventDict) -> EventDict:
        event["process"] = process
        return event

    shared: list[Processor] = [
        name_process,
        *_COMMON_PROCESSORS,
        structlog.processors.StackInfoRenderer(),
    ]
    is_terminal = sys.stderr.isatty()
    renderers: list[Processor] = (
        [structlog.dev.ConsoleRenderer()]
        if is_terminal
        else [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers, redactor()],
        )
    )
    logging.captureWarnings(True)  # warnings in the same format
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs URLs, and those of webhooks may contain a secret


def configure_web(secrets: Collection[str] = ()) -> None:
    """Send structlog's records to stderr as JSON, with secrets redacted. gunicorn logs its own records."""
    structlog.configure(
        processors=[
            *_COMMON_PROCESSORS,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
            redactor(secrets),
        ],
        wrapper_class=structlog.make_filtering_bound_logger("INFO"),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", FailsafeStream(sys.stderr))),
        cache_logger_on_first_use=True,
    )
