"""Media."""

from __future__ import annotations

from dataclasses import dataclass

from config.types import Size, option


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """Files that people send."""

    max_upload_size: Size = option(Size(50 << 20), "The largest file.", not_yet=True)
