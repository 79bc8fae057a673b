"""What room lists are made of, read for many rooms at once.

Each function is one statement, or one for each `_AT_ONCE` rooms: with PostgreSQL the number of
statements is what an answer costs.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from homeserver.core.types import StateKey
from storage.dialect import array_text
from storage.events import ACCEPTED, COLUMNS, EventRow
from storage.receipts import PUBLIC, Receipt
from storage.rooms import COLUMNS as ROOM_COLUMNS
from storage.rooms import RoomRow, from_row
from storage.transaction import Row, Transaction

T = TypeVar("T")
_AT_ONCE = 50
_KNOWN = 250
_LATERAL = 100
"""Rooms for which PostgreSQL looks in turn. One statement for each would cost it ten times as much
in planning."""
_NUMBERS = f"unnest({', '.join(['CAST(? AS BIGINT[])'] * 4)})"
_BEFORE_ALL = -(1 << 62)
"""A position before those of fetched history."""

BUMPS = (
    "m.room.message",
    "m.room.encrypted",
    "m.room.create",
    "m.sticker",
    "m.call.invite",
    "m.poll.start",
    "org.matrix.msc3381.poll.start",
    "m.beacon_info",
    "org.matrix.msc3672.beacon_info",
)
"""Types of events that bring a room to the top, in the order of the index `events_bump`."""
_BUMPS = f"type IN ({', '.join(map(repr, BUMPS))})"


class ListedRoom(NamedTuple):
    """A room in the list of a user."""

    room_nid: int
    room_id: str
    membership: str
    sender: str
    """Who set the membership."""
    member_pos: int
    forgotten: bool
    last_pos: int
    """The position of its newest event."""
    last_receipt: int | None
    """The position of its newest receipt."""
    bumped: int | None
    """The position of the newest event that brings the room to the top."""
    was_joined: bool
    """Whether the user is or ever was in it."""


def _last(column: str, rows: str) -> str:
    return f"(SELECT {column} FROM {rows} ORDER BY {column} DESC LIMIT 1)"


_LISTED = (
    "SELECT m.room_nid, r.room_id, m.membership, m.sender, m.pos, m.forgotten, r.last_pos,"
    f" {_last('pos', 'receipts c WHERE c.room_nid = m.room_nid')},"
    f" {_last('pos', f'events e WHERE e.room_nid = m.room_nid AND {_BUMPS}')},"
    " m.membership = 'join' OR EXISTS (SELECT 1 FROM membership_log l"
    " WHERE l.room_nid = m.room_nid AND l.user_id = m.user_id AND l.membership = 'join')"
    " FROM memberships m JOIN rooms r ON r.room_nid = m.room_nid WHERE m.user_id = ?"
)


def rooms_of(txn: Transaction, user_id: str) -> dict[int, ListedRoom]:
    """The rooms of a user by number, without those that they left themselves."""
    rows = txn.all(
        f"{_LISTED} AND (m.membership IN ('join', 'invite', 'knock', 'ban')"
        " OR m.sender <> m.user_id)",
        (user_id,),
    )
    return {raw[0]: ListedRoom(*raw) for raw in rows}


def rooms_among(
    txn: Transaction, user_id: str, room_nids: Collection[int]
) -> dict[int, ListedRoom]:
    """Those of these rooms that the user ever had to do with."""
    if not room_nids:
        return {}
    where, args = txn.any_of("m.room_nid", room_nids)
    rows = txn.all(f"{_LISTED} AND {where}", [user_id, *args])
    return {raw[0]: ListedRoom(*raw) for raw in rows}


class RoomAt(NamedTuple):
    """A room, and what of it a client knows."""

    row: RoomRow
    old_root: bytes | None
    """The root of its state where the client knows it."""
    joined_at: int | None
    """The position of the user's last join (not of a change of name)."""
    last_break: int | None
    """The last position before which something is missing in the timeline."""


_ROOM = ", ".join("r." + column for column in ROOM_COLUMNS.split(", "))


def rooms_at(txn: Transaction, user_id: str, known: Mapping[int, int | None]) -> dict[int, RoomAt]:
    """Rooms, by number, with what was there where the client knows them.

    Parameters: `known`, up to which position the client knows each room; None: not at all.
    """
    found: dict[int, RoomAt] = {}
    listed = [(nid, -1 if pos is None else pos) for nid, pos in sorted(known.items())]
    for part in _parts(listed, _KNOWN):
        numbers, args = txn.dialect.rows_of(("bigint", "bigint"), part)
        rows = txn.all(
            f"WITH known (room_nid, pos) AS ({numbers})"
            " SELECT (SELECT s.root FROM room_states s WHERE s.room_nid = r.room_nid"
            " AND s.pos <= k.pos ORDER BY s.pos DESC LIMIT 1),"
            " (SELECT l.pos FROM membership_log l WHERE l.room_nid = r.room_nid AND l.user_id = ?"
            " AND l.membership = 'join' AND l.previous <> 'join' ORDER BY l.pos DESC LIMIT 1),"
            f" {_last('b.pos', 'timeline_breaks b WHERE b.room_nid = r.room_nid')},"
            f" {_ROOM} FROM known k JOIN rooms r ON r.room_nid = k.room_nid",
            [*args, user_id],
        )
        for raw in rows:
            row = from_row(raw[3:])
            found[row.room_nid] = RoomAt(row, *raw[:3])
    return found


class Wanted(NamedTuple):
    """The newest events of `after < pos <= upto`, at most `limit`."""

    room_nid: int
    after: int | None
    upto: int
    limit: int


def newest_events(txn: Transaction, wanted: Iterable[Wanted]) -> dict[int, list[EventRow]]:
    """The newest accepted events of each room, the last known first."""
    asked = list(wanted)
    found: dict[int, list[EventRow]] = {one.room_nid: [] for one in asked}
    for raw in newest_of_rooms(txn, COLUMNS, asked):
        row = EventRow(*raw)
        found[row.room_nid].append(row)
    for rows in found.values():
        rows.sort(key=lambda row: row.pos or 0, reverse=True)
    return found


def newest_of_rooms(txn: Transaction, columns: str, wanted: Sequence[Wanted]) -> Iterator[Row]:
    """These columns of the newest accepted events of each room, in no order."""
    if txn.dialect.name == "postgres":
        for part in _parts(wanted, _LATERAL):
            yield from txn.all(
                f"SELECT {columns} FROM {_NUMBERS} AS w (asked_nid, after, upto, count) CROSS JOIN"
                f" LATERAL (SELECT {columns} FROM events WHERE room_nid = w.asked_nid"
                f" AND pos > w.after AND pos <= w.upto AND status = {ACCEPTED}"
                " ORDER BY pos DESC LIMIT w.count) AS e",
                [
                    array_text(one.room_nid for one in part),
                    array_text(_BEFORE_ALL if one.after is None else one.after for one in part),
                    array_text(one.upto for one in part),
                    array_text(one.limit for one in part),
                ],
            )
        return
    for part in _parts(wanted):
        sql, args = [], []
        for number, one in enumerate(part):
            bound = "" if one.after is None else " AND pos > ?"
            more = [] if one.after is None else [one.after]
            sql.append(
                f"SELECT * FROM (SELECT {columns} FROM events WHERE room_nid = ? AND pos <= ?"
                f"{bound} AND status = {ACCEPTED} ORDER BY pos DESC LIMIT ?) AS w{number}"
            )
            args += [one.room_nid, one.upto, *more, one.limit]
        yield from txn.all(" UNION ALL ".join(sql), args)


_STATE = ", ".join("e." + column for column in COLUMNS.split(", "))
_CURRENT = f"SELECT {_STATE} FROM current_state c JOIN events e ON e.event_nid = c.event_nid WHERE"


def current_state(
    txn: Transaction, room_nids: Collection[int], keys: Collection[StateKey], types: Collection[str]
) -> dict[int, dict[StateKey, EventRow]]:
    """Events of the current state of each room: of these keys, and of these types whole."""
    found: dict[int, dict[StateKey, EventRow]] = {}
    if not room_nids:
        return found
    conditions: list[tuple[str, list[Any]]] = []
    for part in _parts(sorted(keys), 200):
        values = ", ".join(["(?, ?)"] * len(part))
        conditions.append(
            (f"(c.type, c.state_key) IN (VALUES {values})", [text for key in part for text in key])
        )
    if types:
        conditions.append(txn.any_of("c.type", types))
    for condition, more in conditions:
        for raw in _state_rows(txn, room_nids, condition, more):
            row = EventRow(*raw)
            found.setdefault(row.room_nid, {})[row.type, row.state_key or ""] = row
    return found


def _state_rows(
    txn: Transaction, room_nids: Collection[int], condition: str, args: Sequence[Any]
) -> list[Row]:
    if txn.dialect.name == "postgres" and len(room_nids) > 1:
        # Room by room (OFFSET 0): else it may read the events of these keys of all rooms.
        return txn.all(
            "SELECT s.* FROM unnest(CAST(? AS BIGINT[])) AS w (asked_nid) CROSS JOIN LATERAL"
            f" ({_CURRENT} c.room_nid = w.asked_nid AND {condition} OFFSET 0) AS s",
            [array_text(room_nids), *args],
        )
    where, numbers = txn.any_of("c.room_nid", room_nids)
    return txn.all(f"{_CURRENT} {where} AND {condition}", [*numbers, *args])


def current_numbers(
    txn: Transaction, room_nids: Collection[int], limit: int, *, without: str | None
) -> dict[int, dict[StateKey, int]] | None:
    """Numbers of the events of the current state of each room, but for those of one type.

    None if there are more than `limit`.
    """
    found: dict[int, dict[StateKey, int]] = {nid: {} for nid in room_nids}
    if not found:
        return found
    where, args = txn.any_of("room_nid", room_nids)
    sql = f"SELECT room_nid, type, state_key, event_nid FROM current_state WHERE {where}"
    if without is None:
        rows = txn.all(f"{sql} LIMIT ?", [*args, limit + 1])
    else:
        # Two ranges of the index, so that very many of that type cost nothing.
        rows = txn.all(
            f"{sql} AND type < ? UNION ALL {sql} AND type > ? LIMIT ?",
            [*args, without, *args, without, limit + 1],
        )
    if len(rows) > limit:
        return None
    for nid, event_type, state_key, number in rows:
        found[nid][event_type, state_key] = number
    return found


def current_members(
    txn: Transaction, wanted: Mapping[int, Collection[str]]
) -> dict[int, dict[StateKey, EventRow]]:
    """The current member events of these users of each room."""
    pairs = [(nid, name) for nid, names in sorted(wanted.items()) for name in sorted(names)]
    found: dict[int, dict[StateKey, EventRow]] = {}
    for part in _parts(pairs, 200):
        for raw in _member_rows(txn, part):
            row = EventRow(*raw)
            found.setdefault(row.room_nid, {})[row.type, row.state_key or ""] = row
    return found


def _member_rows(txn: Transaction, pairs: Sequence[tuple[int, str]]) -> list[Row]:
    if txn.dialect.name == "postgres":
        return txn.all(
            # One by one (OFFSET 0): else it may read all member events to find those of many.
            "SELECT s.* FROM unnest(CAST(? AS BIGINT[]), CAST(? AS TEXT[])) AS w (nid, name)"
            f" CROSS JOIN LATERAL ({_CURRENT} c.room_nid = w.nid AND c.type = 'm.room.member'"
            " AND c.state_key = w.name OFFSET 0) AS s",
            [array_text(nid for nid, _ in pairs), array_text(name for _, name in pairs)],
        )
    values = ", ".join(["(?, ?)"] * len(pairs))
    return txn.all(
        f"{_CURRENT} c.type = 'm.room.member' AND (c.room_nid, c.state_key) IN (VALUES {values})",
        [item for pair in pairs for item in pair],
    )


def rooms_with_state(txn: Transaction, room_nids: Collection[int], event_type: str) -> set[int]:
    """Those of the rooms whose state has an event of a type, with the empty state key."""
    if not room_nids:
        return set()
    where, args = txn.any_of("room_nid", room_nids)
    rows = txn.all(
        f"SELECT room_nid FROM current_state WHERE {where} AND type = ? AND state_key = ''",
        [*args, event_type],
    )
    return {row[0] for row in rows}


def member_counts(txn: Transaction, room_nids: Collection[int]) -> dict[int, dict[str, int]]:
    """How many users are joined to and invited to each room."""
    found: dict[int, dict[str, int]] = {nid: {} for nid in room_nids}
    if not found:
        return found
    where, args = txn.any_of("room_nid", room_nids)
    for nid, membership, count in txn.all(
        f"SELECT room_nid, membership, COUNT(*) FROM memberships WHERE {where}"
        " AND membership IN ('join', 'invite') GROUP BY room_nid, membership",
        args,
    ):
        found[nid][membership] = count
    return found


class Hero(NamedTuple):
    """A member by whom a room without a name is called."""

    user_id: str
    displayname: str | None
    avatar_url: str | None


def heroes(
    txn: Transaction, room_nids: Collection[int], user_id: str, limit: int
) -> dict[int, list[Hero]]:
    """The first others who are joined or invited to each room, else who left, as of `/sync`."""
    found = _first_others(txn, room_nids, user_id, "'join', 'invite'", limit)
    empty = [nid for nid in room_nids if nid not in found]
    return found | _first_others(txn, empty, user_id, "'leave', 'ban'", limit)


def _first_others(
    txn: Transaction, room_nids: Collection[int], user_id: str, memberships: str, limit: int
) -> dict[int, list[Hero]]:
    found: dict[int, list[Hero]] = {}
    columns = "room_nid, pos, user_id, displayname, avatar_url"
    chosen = f"membership IN ({memberships}) AND user_id <> ? ORDER BY pos LIMIT ?"
    rows: list[Row] = []
    if txn.dialect.name == "postgres":
        for part in _parts(sorted(room_nids), _LATERAL):
            rows += txn.all(
                f"SELECT {columns} FROM unnest(CAST(? AS BIGINT[])) AS w (asked_nid) CROSS JOIN"
                f" LATERAL (SELECT {columns} FROM memberships WHERE room_nid = w.asked_nid"
                f" AND {chosen}) AS h",
                [array_text(part), user_id, limit],
            )
    else:
        for part in _parts(sorted(room_nids)):
            sql, args = [], []
            for number, nid in enumerate(part):
                sql.append(
                    f"SELECT * FROM (SELECT {columns} FROM memberships WHERE room_nid = ?"
                    f" AND {chosen}) AS h{number}"
                )
                args += [nid, user_id, limit]
            rows += txn.all(" UNION ALL ".join(sql), args)
    for nid, _, *hero in sorted(rows, key=lambda raw: (raw[0], raw[1])):
        found.setdefault(nid, []).append(Hero(*hero))
    return found


def tags(txn: Transaction, user_id: str) -> dict[str, frozenset[str]]:
    """The user's tags of rooms, by room ID."""
    found = {}
    for room_id, text in txn.all(
        "SELECT room_id, content FROM account_data WHERE user_id = ? AND room_id <> ''"
        " AND type = 'm.tag'",
        (user_id,),
    ):
        names = json.loads(text).get("tags")
        found[room_id] = frozenset(names) if isinstance(names, dict) else frozenset()
    return found


def shown_receipts(
    txn: Transaction, user_id: str, room_nids: Collection[int], event_ids: Collection[str]
) -> list[Receipt]:
    """The user's own receipts in the rooms, and those of all at these events, oldest first."""
    if not room_nids:
        return []
    rooms, args = txn.any_of("room_nid", room_nids)
    named, more = txn.any_of("event_id", event_ids)
    columns = ", ".join(Receipt._fields)
    own = f"SELECT {columns} FROM receipts WHERE {rooms} AND user_id = ?"
    others = (
        f"SELECT {columns} FROM receipts WHERE {rooms} AND {named} AND user_id <> ?"
        f" AND type = '{PUBLIC}'"
    )
    rows = txn.all(f"{own} UNION ALL {others}", [*args, user_id, *args, *more, user_id])
    return sorted((Receipt(*raw) for raw in rows), key=lambda receipt: receipt.pos)


def _parts(items: Sequence[T], size: int = _AT_ONCE) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
