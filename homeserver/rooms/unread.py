"""What an event does to unread counts, decided once when it is appended.

1. An event has a class for everybody in the room: silent, notifying, or highlighting. The room
   keeps running totals of the classes, so that a message costs no row per member.
2. Users who are told more or less than the class says get a mark: those who are mentioned, and
   those whose own push rules say something else.
3. A user's count is then: total now - total at their receipt - own events + marks since.

The main timeline and threads are counted apart; `storage.unread` reads the counts.
"""

from __future__ import annotations

from collections.abc import Sequence

from homeserver.core import push_rules
from homeserver.core.event import Event
from homeserver.core.power_levels import NOTIFICATION_DEFAULT, PowerLevels
from homeserver.core.push_conditions import PushEvent
from homeserver.rooms.draft import CREATE, RoomDraft
from storage import memberships, unread
from storage.events import EventRow
from storage.transaction import Transaction

_POWER = ("m.room.power_levels", "")


def push_event(event: Event, draft: RoomDraft) -> PushEvent:
    """What push rules are asked about an event that is being added to the room."""
    mentions = event.content.get("m.mentions")
    rings_room = isinstance(mentions, dict) and mentions.get("room") is True
    power = _power(draft) if rings_room else None
    return PushEvent(
        event.pdu,
        # Rules for two-person rooms and larger ones notify alike.
        member_count=0,
        sender_power_level=power.user_level(event.sender) if power else 0,
        notification_level=power.notification if power else _default_level,
    )


def _default_level(key: str) -> int:
    return NOTIFICATION_DEFAULT


def _power(draft: RoomDraft) -> PowerLevels | None:
    state = draft.state([CREATE, _POWER])
    if CREATE not in state:
        return None
    return PowerLevels.of(state.get(_POWER), state[CREATE])


def notify_class(event: Event, draft: RoomDraft) -> int:
    """0 silent, 1 notifies, 2 highlights, by the default push rules."""
    return int(push_rules.event_class(push_event(event, draft)))


def write_marks(
    txn: Transaction,
    room_nid: int,
    draft: RoomDraft,
    entries: Sequence[tuple[Event, EventRow]],
) -> None:
    """Mark the joined local users whom the events mention."""
    marks = []
    for event, row in entries:
        if row.pos is None or row.notify > 1:
            continue
        mentioned = [
            user_id
            for user_id in push_rules.highlighted_users(push_event(event, draft))
            if user_id.endswith(":" + draft.server_name)
        ]
        found = memberships.get_many(txn, room_nid, mentioned)
        for user_id, member in found.items():
            if member.membership == "join":
                quiet = row.notify == 0
                marks.append(unread.Mark(user_id, room_nid, row.pos, row.thread_root, quiet, 1))
    if marks:
        unread.add_marks(txn, marks)
