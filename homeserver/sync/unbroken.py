"""The state at the newest events of a room, without looking at it.

Where the state after each event is the state before the next one, and that after the newest is the
current one, nothing else changed the room's state meanwhile (no fork, no resolution, no gap): at
each event it is the current state without what came later. Equal states have equal roots, so that
the roots, which are kept with the events, prove it. What a state key had before the first of its
events is in that event's `replaces_state`.
"""

from __future__ import annotations

from collections.abc import Sequence

from homeserver.core.visibility import HistoryVisibility
from homeserver.rooms.shown_rooms import ShownEvent

_MEMBER = "m.room.member"
_VISIBILITY = ("m.room.history_visibility", "")
_OPEN = (HistoryVisibility.SHARED, HistoryVisibility.WORLD_READABLE)


def is_unbroken(events: Sequence[ShownEvent], end: bytes | None) -> bool:
    """Whether the state at the events is known in this way.

    Parameters: `events`, the newest first; `end`, the root of the room's current state.
    """
    for event in events:
        before, after = event.state_before, event.state_after
        if before is None or after is None or after != end:
            return False
        if (event.state_key is None) != (before == after):
            return False  # It changed something else, or a state event changed nothing.
        end = before
    return True


def own_memberships(events: Sequence[ShownEvent], user_id: str) -> list[str] | None:
    """The user's membership at each event, as `unsigned.membership` tells it: after their own
    member events; None if it is not known of all.

    Parameters: `events`, as of `is_unbroken`, of a room that the user is in now.
    """
    found: list[str] = []
    # How many events are behind those of `found`, up to the next older of their member events.
    pending = 0
    now: str | None = "join"
    last: ShownEvent | None = None
    for event in events:
        if event.type == _MEMBER and event.state_key == user_id:
            if event.membership is None or (last is not None and not _replaces(last, event)):
                return None
            found += [event.membership] * (pending + 1)
            pending, last = 0, event
            now = "leave" if event.replaces_state is None else None
        elif now is not None:
            found.append(now)
        else:
            pending += 1
    return None if pending else found


def _replaces(event: ShownEvent, other: ShownEvent) -> bool:
    return event.replaces_state == other.event_id


def is_open(events: Sequence[ShownEvent], visibility: HistoryVisibility) -> bool:
    """Whether who is in the room now may see all of the events from before they came, too.

    Parameters: `events`, as of `is_unbroken`; `visibility`, the current one.
    """
    return visibility in _OPEN and all(
        # Before the first event that sets it, it is shared.
        event.replaces_state is None
        for event in events
        if (event.type, event.state_key) == _VISIBILITY
    )
