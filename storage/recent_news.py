"""What is new for anybody since a position that is not long ago, in one statement.

Waiting clients are answered from what is read here once for all of them
(`homeserver.sync.journal`). It reads the tables of other modules, as `storage.user_news` does.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from storage.events import ACCEPTED, COLUMNS, EventRow
from storage.transaction import Transaction

LIMIT = 500
"""Rows of one kind; where there are more, nothing is said."""


class RecentNews(NamedTuple):
    """What happened behind a position, up to `now`; rooms by number, with the last position."""

    now: int
    """The clock."""
    events: dict[int, int]
    """Rooms with new events."""
    receipts: dict[int, int]
    """Rooms with new receipts that everybody may see."""
    other: dict[int, int]
    """Rooms in which something else is new, or something that is not the same for all."""
    users: dict[str, int]
    """Users for whom something is new that is not in a room, or not the same for all in it."""
    device_rooms: dict[int, int]
    """Rooms with members whose devices changed."""


def _of(kind: int, room_nid: str, user_id: str, rows: str) -> str:
    return (
        f"SELECT * FROM (SELECT {kind} AS kind, {room_nid} AS room_nid, {user_id} AS user_id, pos"
        f" FROM {rows} WHERE pos > ? ORDER BY pos LIMIT {LIMIT + 1}) n{kind}"
    )


_NOBODY, _NOWHERE = "CAST(NULL AS TEXT)", "CAST(NULL AS BIGINT)"
_CLOCK, _EVENTS, _DEVICES, _RECEIPTS, _FIRST_OTHER = 0, 1, 2, 3, 4
_BOTH = ("membership_log", "notify_marks")
_ROOMS = ("room_states", "sticky_events")
_USERS = ("account_data", "push_rules", "to_device_messages", "gone_rooms")
_OTHERS = (
    *((name, "room_nid", "user_id") for name in _BOTH),
    *((name, "room_nid", _NOBODY) for name in _ROOMS),
    *((name, _NOWHERE, "user_id") for name in _USERS),
)
_NEWS = " UNION ALL ".join(
    [
        f"SELECT {_CLOCK} AS kind, {_NOWHERE} AS room_nid, {_NOBODY} AS user_id, pos FROM clock",
        _of(_EVENTS, "room_nid", _NOBODY, "events"),
        _of(_DEVICES, _NOWHERE, "COALESCE(only_for, user_id)", "device_list_changes"),
        _of(_RECEIPTS, "CASE WHEN type = 'm.read' THEN room_nid END", "user_id", "receipts"),
        *(
            _of(number, room_nid, user_id, name)
            for number, (name, room_nid, user_id) in enumerate(_OTHERS, _FIRST_OTHER)
        ),
    ]
)
_MARKS = _FIRST_OTHER + _BOTH.index("notify_marks")
_DEVICE_ROOMS = (
    "SELECT DISTINCT m.room_nid, c.pos FROM (SELECT user_id, pos FROM device_list_changes"
    f" WHERE pos > ? AND only_for IS NULL ORDER BY pos LIMIT {LIMIT}) c"
    " JOIN memberships m ON m.user_id = c.user_id WHERE m.membership = 'join'"
)


def since(txn: Transaction, after: int) -> tuple[int, RecentNews | None]:
    """The clock, and what is new behind a position; None: too much."""
    rows = txn.all(_NEWS, (after,) * (3 + len(_OTHERS)))
    news = RecentNews(0, {}, {}, {}, {}, {})
    now, counts = after, dict.fromkeys(range(_FIRST_OTHER + len(_OTHERS)), 0)
    for kind, room_nid, user_id, pos in rows:
        counts[kind] += 1
        if kind == _CLOCK:
            now = pos
        elif kind == _EVENTS:
            _raise(news.events, room_nid, pos)
        else:
            # Marks concern one user each: what the others in the room are told is the same.
            if room_nid is not None and kind != _MARKS:
                _raise(news.receipts if kind == _RECEIPTS else news.other, room_nid, pos)
            if user_id is not None:
                _raise(news.users, user_id, pos)
    if max(counts.values()) > LIMIT:
        return now, None
    if counts[_DEVICES]:
        for room_nid, pos in txn.all(_DEVICE_ROOMS, (after,)):
            _raise(news.device_rooms, room_nid, pos)
    return now, news._replace(now=now)


def _raise(found: dict[int, int] | dict[str, int], key: int | str, pos: int) -> None:
    # A value is a position, of whichever key.
    positions: dict[int | str, int] = found  # type: ignore[assignment]
    positions[key] = max(positions.get(key, 0), pos)


def events_of(txn: Transaction, room_nids: Collection[int], after: int) -> list[EventRow]:
    """The accepted events of rooms behind a position, the oldest first."""
    if not room_nids:
        return []
    where, args = txn.any_of("room_nid", room_nids)
    rows = txn.all(
        f"SELECT {COLUMNS} FROM events WHERE {where} AND pos > ? AND status = {ACCEPTED}"
        " ORDER BY pos",
        [*args, after],
    )
    return [EventRow(*raw) for raw in rows]
