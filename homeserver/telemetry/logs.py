"""Logs: structlog to standard error or a file, as lines for people or as JSON.

One line costs microseconds: no stdlib logging lies between. Every line carries the ID of the
request it belongs to, from `REQUEST_ID`, which the web layer sets and which follows coroutines
and database threads. What Twisted and libraries log comes out of the same place.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, TypeAlias

import orjson
import structlog
from structlog.typing import FilteringBoundLogger
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogBeginner
from twisted.python.failure import Failure
from zope.interface import implementer

from config.model import Log

Logger: TypeAlias = FilteringBoundLogger

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The ID of the request that the running code serves."""

_BUFFERED_BYTES = 64 * 1024
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class LogOutput:
    """Where lines go. A file is written in batches; call `flush` each second and at the end.

    Raises OSError if the file cannot be opened. Safe to use from any thread.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._pending: list[str] = []
        self._pending_size = 0
        self._file = self._open()

    def _open(self) -> IO[str]:
        if self._path is None:
            return sys.stderr
        return self._path.open("a", encoding="utf-8", errors="backslashreplace")

    def write(self, line: str) -> None:
        """Add one line (without its newline)."""
        with self._lock:
            self._pending.append(line)
            self._pending_size += len(line)
            if self._path is None or self._pending_size >= _BUFFERED_BYTES:
                self._flush()

    def write_now(self, line: str) -> None:
        """Add a line that must not be lost if the process dies."""
        with self._lock:
            self._pending.append(line)
            self._flush()

    # The names of the levels, as structlog calls them.
    debug = info = write
    warning = error = critical = exception = write_now

    def flush(self) -> None:
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        if not self._pending:
            return
        lines, self._pending, self._pending_size = self._pending, [], 0
        try:
            self._file.write("\n".join(lines) + "\n")
            self._file.flush()
        except (OSError, ValueError):
            # A full disk or a closed standard error must not stop the server.
            pass

    def reopen(self) -> None:
        """Write to the file of that name from now on: after log rotation."""
        with self._lock:
            self._flush()
            if self._path is not None:
                old, self._file = self._file, self._open()
                old.close()

    def close(self) -> None:
        with self._lock:
            self._flush()
            if self._path is not None:
                self._file.close()


def open_output(config: Log) -> LogOutput:
    """The output that the configuration asks for; raises OSError."""
    return LogOutput(None if config.to == "stderr" else Path(config.to))


def make_logger(output: LogOutput, config: Log) -> Logger:
    """A logger writing to `output` in the configured format from the configured level on."""
    logger = structlog.wrap_logger(
        output,
        processors=[_json_line if config.format == "json" else _human_line],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[config.level]),
        cache_logger_on_first_use=True,
    )
    bound: Logger = logger.bind()
    return bound


def install(output: LogOutput, config: Log) -> Logger:
    """Send what this whole process logs to `output`: for the main program, once.

    Besides the returned logger that is what `structlog.get_logger()` gives, the log of Twisted
    and that of the standard library.
    """
    structlog.configure(
        processors=[_json_line if config.format == "json" else _human_line],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[config.level]),
        logger_factory=lambda *_: output,
        cache_logger_on_first_use=True,
    )
    log = make_logger(output, config)
    globalLogBeginner.beginLoggingTo(
        [TwistedObserver(log)], discardBuffer=True, redirectStandardIO=False
    )
    logging.getLogger().handlers = [StdlibHandler(log)]
    return log


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _traceback_of(exc_info: Any) -> str | None:
    """The text of what structlog's callers pass as `exc_info`."""
    if exc_info is True:
        exc_info = sys.exc_info()[1]
    if isinstance(exc_info, tuple):
        exc_info = exc_info[1]
    if isinstance(exc_info, Failure):
        return exc_info.getTraceback().rstrip()
    if isinstance(exc_info, BaseException):
        return "".join(traceback.format_exception(exc_info)).rstrip()
    return None


def _level_of(method: str) -> str:
    return "error" if method == "exception" else method


def _json_line(_logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
    line: dict[str, Any] = {
        "time": _now(),
        "level": _level_of(method),
        "event": event.pop("event", ""),
    }
    if (request_id := REQUEST_ID.get()) is not None:
        line["request_id"] = request_id
    if (trace := _traceback_of(event.pop("exc_info", None))) is not None:
        line["traceback"] = trace
    line.update(event)
    try:
        return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # lone surrogates, integers beyond 64 bits
        return orjson.dumps({_plain(key): _plain(value) for key, value in line.items()}).decode()


def _plain(value: Any) -> str:
    return str(value).encode("utf-8", "backslashreplace").decode()


def _human_value(value: Any) -> str:
    text = str(value)
    return ascii(text) if not text.isprintable() or " " in text or not text else text


def _human_line(_logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
    text = str(event.pop("event", ""))
    trace = _traceback_of(event.pop("exc_info", None))
    parts = [_now(), f"{_level_of(method):7}", text.replace("\n", "\\n")]
    parts.extend(f"{key}={_human_value(value)}" for key, value in event.items())
    if (request_id := REQUEST_ID.get()) is not None:
        parts.append(f"[{request_id}]")
    line = " ".join(parts)
    return line if trace is None else f"{line}\n{trace}"


@implementer(ILogObserver)
class TwistedObserver:
    """Passes on what Twisted logs: its troubles as they are, its chatter as debug."""

    def __init__(self, log: Logger) -> None:
        self._log = log

    def __call__(self, event: LogEvent) -> None:
        failure = event.get("log_failure")
        text = formatEvent(event) or "Unhandled error"
        source = str(event.get("log_namespace", "twisted"))
        if failure is not None:
            self._log.error(text.partition("\n")[0], source=source, exc_info=failure)
        elif event.get("log_level", LogLevel.info) >= LogLevel.warn:
            self._log.warning(text, source=source)
        else:
            self._log.debug(text, source=source)


class StdlibHandler(logging.Handler):
    """Passes on what libraries log through the standard library, from warning on."""

    def __init__(self, log: Logger) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        extra: Mapping[str, Any] = {"exc_info": record.exc_info} if record.exc_info else {}
        method = self._log.error if record.levelno >= logging.ERROR else self._log.warning
        method("%s", record.getMessage(), source=record.name, **extra)
