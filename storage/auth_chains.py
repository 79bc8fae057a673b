"""Auth chains of stored events, walked level by level."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from sys import intern
from typing import Any

import orjson

from homeserver.cache import Cache
from storage.events import ACCEPTED, SOFT_FAILED
from storage.transaction import Transaction

_PART = 1000


class AuthChains:
    """Finds auth chains through a cache of what never changes: an event's auth events.

    One for each homeserver; used in database threads.
    """

    def __init__(self) -> None:
        self._edges: Cache[str, tuple[str, ...]] = Cache("auth_edges", _size, share=0.2)
        self.caches = (self._edges,)

    def chain(
        self,
        txn: Transaction,
        event_ids: Iterable[str],
        *,
        texts: Mapping[str, str] | None = None,
    ) -> set[str]:
        """IDs of all stored events that can be reached from these by `auth_events`.

        Of the given events those are among them that are an auth event of something reached.
        Rejected events are left out, and what only they lead to. Parameters: `texts`, JSON of
        events that the caller has read already, by event ID.
        """
        level = set(event_ids)
        seen = set(level)
        stored: set[str] = set()
        named: set[str] = set()
        while level:
            edges = self.edges(txn, level, texts=texts)
            stored |= edges.keys()
            below = {auth_id for auth_ids in edges.values() for auth_id in auth_ids}
            named |= below
            level = below - seen
            seen |= level
        return named & stored

    def edges(
        self,
        txn: Transaction,
        event_ids: Collection[str],
        *,
        texts: Mapping[str, str] | None = None,
    ) -> dict[str, tuple[str, ...]]:
        """IDs of the auth events of each of these; unknown and rejected events are left out."""
        given = texts or {}
        found: dict[str, tuple[str, ...]] = {}
        unread = []
        for event_id in event_ids:
            known = self._edges.get(event_id)
            if known is None:
                unread.append(event_id)
            else:
                found[event_id] = known
        fresh = {intern(str(name)): auth_ids_of(given[name]) for name in unread if name in given}
        missing = [name for name in unread if name not in given]
        for part in _parts(missing):
            where, args = txn.any_of("event_id", part)
            rows = txn.all(
                f"SELECT event_id, json FROM events WHERE {where}"
                f" AND status IN ({ACCEPTED}, {SOFT_FAILED})",
                args,
            )
            fresh |= {intern(event_id): auth_ids_of(text) for event_id, text in rows}
        self._edges.update(fresh)
        return found | fresh


def _size(event_id: str, auth_ids: tuple[str, ...]) -> int:
    # The IDs of auth events are shared among those that name them.
    return 250 + 8 * len(auth_ids)


def texts_of(txn: Transaction, event_ids: Collection[str]) -> dict[str, str]:
    """JSON of these events by their IDs, the shallowest first; without rejected ones."""
    rows: list[tuple[int, str, str]] = []
    for part in _parts(list(event_ids)):
        where, args = txn.any_of("event_id", part)
        rows += txn.all(
            f"SELECT depth, event_id, json FROM events WHERE {where}"
            f" AND status IN ({ACCEPTED}, {SOFT_FAILED})",
            args,
        )
    return {event_id: text for _, event_id, text in sorted(rows)}


def texts_by_nids(txn: Transaction, event_nids: Collection[int]) -> dict[str, str]:
    """JSON of the events of these numbers by event ID, in the order of the numbers."""
    found: dict[str, str] = {}
    for part in _parts(sorted(event_nids)):
        where, args = txn.any_of("event_nid", part)
        rows = txn.all(
            f"SELECT event_nid, event_id, json FROM events WHERE {where} ORDER BY event_nid", args
        )
        found |= {event_id: text for _, event_id, text in rows}
    return found


def ids_by_nids(txn: Transaction, event_nids: Collection[int]) -> list[str]:
    """IDs of the events of these numbers."""
    found: list[str] = []
    for part in _parts(sorted(event_nids)):
        where, args = txn.any_of("event_nid", part)
        rows = txn.all(f"SELECT event_id FROM events WHERE {where} ORDER BY event_nid", args)
        found += [row[0] for row in rows]
    return found


def auth_ids_of(text: str) -> tuple[str, ...]:
    """The auth events of a stored event, in room version 12 the create event among them.

    There it is not named, because the room ID says which it is; but no event is authorised
    without it, and who checks an auth chain looks for it there.
    """
    pdu = orjson.loads(text)
    entries = pdu.get("auth_events")
    # In room versions 1 and 2 an entry is a pair of event ID and hashes.
    found = [
        intern(entry if isinstance(entry, str) else entry[0])
        for entry in (entries if isinstance(entries, list) else ())
    ]
    room_id = pdu.get("room_id")
    if isinstance(room_id, str) and ":" not in room_id:
        found.append(intern("$" + room_id[1:]))
    return tuple(found)


def _parts(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(values), _PART):
        yield values[start : start + _PART]
