"""Pages of lists, as Synapse's administration API has them: `from`, `limit`, `dir`."""

from __future__ import annotations

from typing import Literal

import msgspec

from homeserver.core.errors import invalid_param

MAX_LIMIT = 1000
"""Items in one answer; who asks for more gets so many, and a token for the next ones."""


class Page(msgspec.Struct, frozen=True):
    """The usual parameters. `from` is an offset, given by the last answer's `next_token`."""

    from_: int = msgspec.field(default=0, name="from")
    limit: int = 100
    dir: Literal["f", "b"] | None = None

    def bounds(self) -> tuple[int, int]:
        """Offset and number of items. Raises MatrixError 400 M_INVALID_PARAM."""
        if self.from_ < 0:
            raise invalid_param("Query parameter from must not be negative.")
        if self.limit < 0:
            raise invalid_param("Query parameter limit must not be negative.")
        return self.from_, min(self.limit, MAX_LIMIT)

    def next(self, total: int) -> int | None:
        """The next page's `from`, None where this one is the last."""
        start, limit = self.bounds()
        return start + limit if start + limit < total else None
