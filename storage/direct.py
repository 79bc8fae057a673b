"""Running point queries on the reactor thread, where nothing may wait.

What cannot be done at once, for whatever reason, is done by a thread instead, in the general way
(`Database.read`): so errors, retries and waiting for a database that is away are the same.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from storage.point_query import PointQuery
from storage.transaction import Row


class NotDirect(Exception):
    """The query found no answer this way: a thread is to run it."""


class Direct(Protocol):
    """Connections for point queries. Used on the reactor thread."""

    def rows(
        self, query: PointQuery[..., Any], args: Any
    ) -> list[Row] | Deferred[list[Row]] | None:
        """What a query finds, now or later; None, or NotDirect later: not this way.

        A Deferred that is cancelled drops the rows and leaves the connection alone.
        """

    def close(self) -> None:
        """Close all connections; what is under way ends with NotDirect."""


class QueryCounts:
    """How many point queries of each name ran, by `way`: "direct" or "thread"."""

    __slots__ = ("direct", "thread")

    def __init__(self) -> None:
        self.direct: Counter[str] = Counter()
        self.thread: Counter[str] = Counter()
