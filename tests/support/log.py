"""A logger whose lines a test can look at."""

from __future__ import annotations

import logging
from typing import Any

import structlog
from structlog.testing import CapturingLogger

from homeserver.telemetry.logs import Logger


class CapturedLog:
    """`logger` for the code under test; `lines` as dictionaries with `level` and `event`."""

    def __init__(self, level: int = logging.INFO) -> None:
        self._output = CapturingLogger()
        logger: Logger = structlog.wrap_logger(
            self._output,
            processors=[],
            wrapper_class=structlog.make_filtering_bound_logger(level),
        ).bind()
        self.logger = logger

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [{"level": call.method_name, **call.kwargs} for call in self._output.calls]
