"""Who may look into a room, and how far.

1. Joined: everything that history visibility shows.
2. Left, kicked or banned after having been joined: nothing that came after that; state and
   members are those of that moment.
3. Everybody, guests too, where the room is world-readable now.
4. Invited, where history is visible to the invited now.
5. Administrators, through their own endpoints: everything.
6. Nobody else. A room that was forgotten is as if one had never been there.

Single events are a case of their own: their history visibility alone decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from homeserver.core import errors, state_tree
from homeserver.core.event import Event
from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.core.visibility import FOREVER, HistoryVisibility, visibility_of
from homeserver.rooms.view import RoomView, Seen, WholeView
from homeserver.web.request import Requester
from storage import events, memberships, rooms, state
from storage.events import EventRow
from storage.rooms import RoomRow
from storage.state import StateStore
from storage.transaction import Transaction

_VISIBILITY = ("m.room.history_visibility", "")


class Standing(Enum):
    """What the reader is to the room. See the module."""

    JOINED = "joined"
    LEFT = "left"
    PEEKING = "peeking"
    INVITED = "invited"
    FORGOTTEN = "forgotten"
    STRANGER = "stranger"
    OVERSEEING = "overseeing"


_INSIDE = (Standing.JOINED, Standing.LEFT, Standing.PEEKING, Standing.OVERSEEING)


@dataclass(frozen=True, slots=True)
class RoomAccess:
    """A room as it is open to one reader.

    `until`: the last position of which the reader learns; None: no limit.
    """

    view: RoomView
    standing: Standing
    until: int | None

    @property
    def room(self) -> RoomRow:
        """The room's row."""
        return self.view.room

    @property
    def may_see_state(self) -> bool:
        """Whether the reader may look at the room's state as a whole."""
        return self.standing in _INSIDE

    def visible(self, rows: Sequence[EventRow]) -> list[Seen]:
        """Those of the rows that the reader may see, in the same order."""
        if self.standing is Standing.FORGOTTEN:
            return []
        until = self.until
        if until is not None:
            rows = [row for row in rows if row.pos is None or row.pos <= until]
        return self.view.visible(rows)

    def state_root(self) -> bytes | None:
        """The root of the state that the reader is shown if it is not the current state."""
        if self.until is None:
            return None
        found = state.root_at(self.view.txn, self.room.room_nid, self.until)
        return found if found is not None else state_tree.EMPTY


def look(
    txn: Transaction, states: StateStore, room_id: str, requester: Requester
) -> RoomAccess | None:
    """A room as it is open to the requester, perhaps not at all; None if it is not known."""
    room = rooms.get(txn, room_id)
    if room is None or room.state_root is None or room.version not in ROOM_VERSIONS:
        return None
    if requester.sees_everything:
        whole = WholeView(txn, states, room, requester.user_id, requester.device_id)
        return RoomAccess(whole, Standing.OVERSEEING, None)
    view = RoomView(txn, states, room, requester.user_id, requester.device_id)
    member = memberships.get(txn, room.room_nid, requester.user_id)
    membership = member.membership if member is not None else None
    if membership == "join":
        return RoomAccess(view, Standing.JOINED, None)
    forgotten = member is not None and member.forgotten
    since, until = view.stay
    if since is not None and not forgotten:
        return RoomAccess(view, Standing.LEFT, None if until == FOREVER else until)
    visibility = current_visibility(view)
    if visibility is HistoryVisibility.WORLD_READABLE:
        return RoomAccess(view, Standing.PEEKING, None)
    if forgotten:
        return RoomAccess(view, Standing.FORGOTTEN, None)
    if membership == "invite" and visibility is HistoryVisibility.INVITED:
        return RoomAccess(view, Standing.INVITED, None)
    return RoomAccess(view, Standing.STRANGER, None)


def enter(
    txn: Transaction,
    states: StateStore,
    room_id: str,
    requester: Requester,
    *,
    state_too: bool = False,
) -> RoomAccess:
    """A room whose history (or, `state_too`, whose state as well) the requester may look at.

    Raises:
        MatrixError: 403 `M_FORBIDDEN`, also for a room that is not known.
    """
    access = look(txn, states, room_id, requester)
    allowed = set(_INSIDE)
    if not state_too:
        allowed.add(Standing.INVITED)
    if access is None or access.standing not in allowed:
        raise errors.forbidden("You are not in this room, or it does not exist.")
    return access


def find_event(
    txn: Transaction, states: StateStore, room_id: str, event_id: str, requester: Requester
) -> tuple[RoomAccess, Seen]:
    """An event that the requester may see.

    What is here for what it authorises only has no place in the room, and is not shown.

    Raises:
        MatrixError: 404 `M_NOT_FOUND` if there is none, or none for them.
    """
    access = look(txn, states, room_id, requester)
    row = events.get(txn, event_id)
    if row is not None and row.pos is None:
        row = None
    if access is not None and row is not None and row.room_nid == access.room.room_nid:
        seen = access.visible([row])
        if seen:
            return access, seen[0]
    raise errors.not_found("There is no such event, or you may not see it.")


def current_visibility(view: RoomView) -> HistoryVisibility:
    """The history visibility that the room has now."""
    row = state.current(view.txn, view.room.room_nid, [_VISIBILITY]).get(_VISIBILITY)
    event: Event | None = view.event(row) if row is not None else None
    return visibility_of(event.content if event is not None else None)
