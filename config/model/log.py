"""Logs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from config.types import option


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """What is logged, where to and how."""

    level: Literal["debug", "info", "warning", "error"] = option(
        "info", "The least level that is written: debug, info, warning or error."
    )
    to: str = option("stderr", "`stderr`, or a file.")
    format: Literal["human", "json"] = option("human", "human, or json: one object a line.")
