"""How often a homeserver asks its database, and what for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from storage.database import Database, Timing, sleep
from tests.support.databases import reactor

Step = Callable[[], Awaitable[object]]


class Cost(NamedTuple):
    """What one run of an operation asked of the database."""

    hops: int
    """Transactions, each of which is a way to another thread and back."""
    statements: int
    """All statements, those without a transaction too."""


@dataclass
class Counted:
    """What was asked while it was counted; `names` are the transactions and queries."""

    hops: int = 0
    statements: int = 0
    names: Counter[str] = field(default_factory=Counter)

    def note(self, timing: Timing) -> None:
        """Count a transaction."""
        # Of a write by one statement the name tells whether a thread did it.
        self.hops += timing.kind != "single" or timing.name == "in_thread"
        self.statements += timing.statements
        self.names[f"{timing.kind} {timing.name} ({timing.statements})"] += 1

    def note_queries(self, names: Counter[str]) -> None:
        """Count queries that ran without a transaction."""
        self.statements += names.total()
        self.names.update({f"query {name}": count for name, count in names.items()})

    @property
    def cost(self) -> Cost:
        return Cost(self.hops, self.statements)


@contextmanager
def counted(db: Database) -> Iterator[Counted]:
    """Count what is asked of an open database as long as the context lasts."""
    found = Counted()
    observe: Any = db._observe
    queries = db.queries.direct.copy()

    def note(timing: Timing) -> None:
        found.note(timing)
        if observe is not None:
            observe(timing)

    db._observe = note
    try:
        yield found
    finally:
        db._observe = observe
        found.note_queries(db.queries.direct - queries)


async def quiet(db: Database) -> None:
    """Returns when nothing is asked of the database, and nothing follows from what was."""
    for _ in range(3):
        await sleep(reactor, 0)
        while not db._threads.is_idle:
            await sleep(reactor, 0.001)


async def least(db: Database, runs: int, operation: Step, before: Step | None = None) -> Counted:
    """The cheapest of so many runs: what happens beside now and then is not counted.

    `before` is done before each run, and not counted.
    """
    best: Counted | None = None
    for _ in range(runs):
        if before is not None:
            await before()
        await quiet(db)
        with counted(db) as found:
            await operation()
            await quiet(db)
        if best is None or found.cost < best.cost:
            best = found
    assert best is not None
    return best
