"""The current state of a room in client form, as text, for somebody who is in it.

As `homeserver.rooms.view.RoomView.render_state` shows it, from what is kept in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import msgspec

from homeserver.core.client_text import JOINED, opening
from homeserver.rooms.access import RoomAccess, Standing
from homeserver.rooms.shown_rooms import Asked, ShownRoom, ShownRooms, ShownState
from homeserver.rooms.view import RoomView
from homeserver.web.responses import encode_json
from storage import events, rooms

_ROWS = 500


def texts(
    view: RoomView,
    states: Iterable[ShownState],
    own: ShownState | None,
    now_ms: int,
    *,
    since: int,
    room_id: bool,
) -> tuple[list[bytes], list[int]]:
    """State events in client form, and the numbers of those that cannot be shown by text alone.

    Parameters: `own`, the reader's member event; `since`, the position of their join.
    """
    start = opening(view.room.room_id if room_id else None)
    found: list[bytes] = []
    special: list[int] = []
    for one in states:
        form = one.form
        if form is None:
            special.append(one.event_nid)
            continue
        more = JOINED if one is own or (one.pos is not None and one.pos > since) else b""
        found.append(b"%b%b%d%b%b" % (start, form.head, now_ms - form.ts, more, form.tail))
    return found, special


def listed(parts: Iterable[bytes]) -> msgspec.Raw:
    """A JSON array of encoded values."""
    return msgspec.Raw(b"[" + b",".join(parts) + b"]")


def of_room(
    room: RoomAccess,
    kept: ShownRooms,
    now_ms: int,
    *,
    members_only: bool = False,
    choose: Callable[[str | None], bool] | None = None,
) -> msgspec.Raw | None:
    """The events of the room's current state; None if they are to be shown in the general way.

    Parameters: `members_only`, only member events, of these only those whose membership is chosen.
    """
    view = room.view
    txn, row = view.txn, room.room
    since = view.stay.joined_since if room.standing is Standing.JOINED else None
    if since is None:
        return None
    asked = Asked(row, rooms.content_version(txn, row.room_nid))
    found = kept.read(txn, [asked], 0, all_members=True).get(row.room_nid)
    if found is None:
        return None
    own = found.members.get(view.reader_id)
    chosen = list(_chosen(found, members_only, choose))
    parts, special = texts(view, chosen, own, now_ms, since=since, room_id=True)
    for first in range(0, len(special), _ROWS):
        rows = events.get_by_nids(txn, special[first : first + _ROWS])
        parts += map(encode_json, view.render_state(list(rows.values()), now_ms))
    return listed(parts)


def _chosen(
    room: ShownRoom, members_only: bool, choose: Callable[[str | None], bool] | None
) -> Iterator[ShownState]:
    if not members_only:
        yield from room.state.values()
    for one in room.members.values():
        if one is not None and (choose is None or choose(one.membership)):
            yield one
