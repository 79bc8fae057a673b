"""Resolving a fork as a server does: by state trees of a database, from which events are read."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from homeserver.cache import Caches
from homeserver.core.event import Event
from homeserver.core.room_versions import RoomVersion
from homeserver.core.types import StateKey
from homeserver.rooms.room_tree import RoomTree
from homeserver.rooms.rooted import Rooted
from homeserver.rooms.write import event_row
from storage import events, migrate
from storage.database import backend_for
from storage.pool import Session
from storage.state import StateStore

_CACHES = 100 << 20
_ROOM = 1


@contextmanager
def opened(url: str) -> Iterator[Session]:
    """A connection to an empty database, which gets its tables."""
    session = backend_for(url).connect(writable=True)
    try:
        migrate.migrate(session, migrate.find())
        yield session
    finally:
        session.close()


class StoredFork:
    """States of a room and the events behind them, written into a database."""

    def __init__(
        self,
        session: Session,
        states: Sequence[Mapping[StateKey, str]],
        known: Mapping[str, Event],
        version: RoomVersion,
    ) -> None:
        self._session = session
        self._version = version
        self._store = StateStore()
        numbers = {name: number for number, name in enumerate(known, 1)}
        txn = session.begin()
        rows = [
            event_row(Rooted(event, numbers[name], b"", b"", None, {}), _ROOM, None, None)
            for name, event in known.items()
        ]
        events.insert(txn, [row._replace(state_before=None, state_after=None) for row in rows])
        tree = RoomTree(txn, StateStore(), _ROOM, version)
        self._roots = [tree.build({key: numbers[n] for key, n in each.items()}) for each in states]
        tree.save()
        session.commit()

    def keep(self) -> None:
        """Resolve, and store what the database keeps of that for the next time."""
        self.forget()
        txn = self._session.begin()
        tree = RoomTree(txn, self._store, _ROOM, self._version)
        tree.resolve(self._roots)
        tree.save()
        self._session.commit()

    def forget(self) -> None:
        """Begin with empty caches."""
        self._store = StateStore()
        whole = Caches(_CACHES)
        for cache in self._store.caches:
            whole.adopt(cache)

    def resolve(self) -> dict[StateKey, str]:
        """The whole state that comes out, by event IDs."""
        txn = self._session.begin()
        tree = RoomTree(txn, self._store, _ROOM, self._version)
        numbers = tree.all_numbers(tree.resolve(self._roots))
        found = tree.events_of(set(numbers.values()))
        self._session.rollback()
        return {key: found[number].event_id for key, number in numbers.items()}

    def milliseconds(self, times: int, *, cold: bool) -> list[float]:
        """CPU of the process for each of so many resolutions, with empty caches or with full ones.

        Reading the states, the events and what these rest on is part of it; what a database server
        uses is not.
        """
        found = []
        for _ in range(times):
            if cold:
                self.forget()
            gc.collect()
            gc.disable()
            began = time.process_time()
            txn = self._session.begin()
            RoomTree(txn, self._store, _ROOM, self._version).resolve(self._roots)
            self._session.rollback()
            for callback in txn.callbacks:
                callback()
            found.append((time.process_time() - began) * 1000)
            gc.enable()
        return found
