"""Which events others name as their auth events, by numbers, for many events in one row.

It is all in the JSON of the events, but reading thousands of these for it takes many times as long.
Table `auth_packs`. A row is an aid: what is in none is read from the events. What is in one is
right for ever, since an event never changes what it names, and state events stay as long as their
room. `first_nid` is the lowest number in a row.

A body is little-endian: how many events there are, and how many different lists of auth events
(32 bits each); the numbers of the events (64 bits); for each the place of its list (32 bits); the
lengths of the lists (32 bits); what is in the lists, one after the other (64 bits).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from storage.transaction import Transaction

Edges = Mapping[int, tuple[int, ...]]

_PART = 20_000
"""So many events are put into a row."""


def load(txn: Transaction, room_nid: int) -> dict[int, tuple[int, ...]]:
    """Numbers of the auth events of all events of a room that are in rows; equal tuples of a row
    are the same."""
    found: dict[int, tuple[int, ...]] = {}
    for (body,) in txn.all("SELECT body FROM auth_packs WHERE room_nid = ?", (room_nid,)):
        found.update(unpack(bytes(body)))
    return found


def save(txn: Transaction, room_nid: int, edges: Edges) -> None:
    """Keep the auth events of events that are in no row yet, all of which are stored."""
    numbers = sorted(edges)
    parts = [numbers[start : start + _PART] for start in range(0, len(numbers), _PART)]
    txn.many(
        "INSERT INTO auth_packs (room_nid, first_nid, body) VALUES (?, ?, ?)"
        " ON CONFLICT (room_nid, first_nid) DO NOTHING",
        [(room_nid, part[0], pack({number: edges[number] for number in part})) for part in parts],
    )


def pack(edges: Edges) -> bytes:
    """The body of a row."""
    places: dict[tuple[int, ...], int] = {}
    where = [places.setdefault(auths, len(places)) for auths in edges.values()]
    lengths = list(map(len, places))
    named = list(chain.from_iterable(places))
    return struct.pack(
        f"<II{len(edges)}q{len(edges)}I{len(lengths)}I{len(named)}q",
        *(len(edges), len(places), *edges, *where, *lengths, *named),
    )


def unpack(body: bytes) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Numbers of events, each with those of its auth events.

    Raises struct.error if it is no body of a row.
    """
    size, count = struct.unpack_from("<II", body)
    numbers = struct.unpack_from(f"<{size}q", body, 8)
    where = struct.unpack_from(f"<{size}I", body, 8 + 8 * size)
    start = 8 + 12 * size
    lengths = struct.unpack_from(f"<{count}I", body, start)
    named = struct.unpack_from(f"<{sum(lengths)}q", body, start + 4 * count)
    return zip(numbers, map(_lists(lengths, named).__getitem__, where), strict=True)


def _lists(lengths: Sequence[int], named: tuple[int, ...]) -> list[tuple[int, ...]]:
    found = []
    end = 0
    for length in lengths:
        start, end = end, end + length
        found.append(named[start:end])
    return found
