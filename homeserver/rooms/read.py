"""Reading single events, the state and the members of rooms (client-server API, "Getting events
for a room")."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from twisted.internet.interfaces import IReactorTime

from homeserver.core import errors
from homeserver.core.tokens import SyncToken
from homeserver.core.types import JsonObject
from homeserver.rooms import access, aggregations, shown_state
from homeserver.rooms.access import RoomAccess, Standing
from homeserver.rooms.shown_rooms import ShownRooms
from homeserver.rooms.timeline import RoomToken
from homeserver.web.request import Requester
from homeserver.web.responses import encode_json
from storage import account_data, memberships, state, timeline
from storage.database import Database
from storage.events import EventRow
from storage.state import StateStore
from storage.timeline import Place, Span
from storage.transaction import Transaction

_MEMBER = "m.room.member"


class Reading:
    """Reads what is in rooms."""

    def __init__(
        self, db: Database, states: StateStore, clock: IReactorTime, kept: ShownRooms
    ) -> None:
        self._kept = kept
        self._db = db
        self._states = states
        self._clock = clock

    async def event(self, requester: Requester, room_id: str, event_id: str) -> JsonObject:
        """One event, with its aggregations.

        Raises:
            MatrixError: 404 `M_NOT_FOUND`, also if the requester may not see it.
        """
        now_ms = self._now_ms()

        def read(txn: Transaction) -> JsonObject:
            room, seen = access.find_event(txn, self._states, room_id, event_id, requester)
            ignored = account_data.ignored_users(txn, requester.user_id)
            relations = aggregations.bundle(room.view, [seen], now_ms, ignored=ignored)
            return room.view.render([seen], now_ms, relations=relations)[0]

        return await self._db.read(read)

    async def state(self, requester: Requester, room_id: str) -> msgspec.Raw:
        """The events of the room's state: the current one, or the one at the requester's leave.

        Raises:
            MatrixError: 403 `M_FORBIDDEN`.
        """
        now_ms = self._now_ms()

        def read(txn: Transaction) -> msgspec.Raw:
            room = access.enter(txn, self._states, room_id, requester, state_too=True)
            kept = shown_state.of_room(room, self._kept, now_ms)
            if kept is not None:
                return kept
            root = room.state_root()
            if root is None:
                rows = state.current(txn, room.room.room_nid)
            else:
                rows = room.view.state_at(root)
            shown = room.view.render_state(list(rows.values()), now_ms)
            return shown_state.listed(map(encode_json, shown))

        return await self._db.read(read)

    async def state_event(
        self, requester: Requester, room_id: str, event_type: str, state_key: str
    ) -> JsonObject:
        """One event of the room's state.

        Raises:
            MatrixError: 403 `M_FORBIDDEN`; 404 `M_NOT_FOUND` if the state has no such key.
        """
        now_ms = self._now_ms()
        key = (event_type, state_key)

        def read(txn: Transaction) -> JsonObject:
            room = access.enter(txn, self._states, room_id, requester, state_too=True)
            root = room.state_root()
            if root is None:
                rows = state.current(txn, room.room.room_nid, [key])
            else:
                rows = room.view.state_at(root, [key])
            if key not in rows:
                raise errors.not_found("The room has no state of this type and key.")
            return room.view.render_state([rows[key]], now_ms)[0]

        return await self._db.read(read)

    async def members(
        self,
        requester: Requester,
        room_id: str,
        *,
        at: RoomToken | None = None,
        membership: str | None = None,
        not_membership: str | None = None,
    ) -> msgspec.Raw:
        """The member events of the room, now or at a token.

        Parameters: an event is chosen if its membership is `membership` or is not
        `not_membership`.

        Raises:
            MatrixError: 403 `M_FORBIDDEN`, also where the requester may not see the room's
                history at the token.
        """
        now_ms = self._now_ms()

        def choose(own: str | None) -> bool:
            if membership is None and not_membership is None:
                return True
            if membership is not None and own == membership:
                return True
            return not_membership is not None and own != not_membership

        def read(txn: Transaction) -> msgspec.Raw:
            room = access.enter(txn, self._states, room_id, requester, state_too=True)
            if at is None:
                kept = shown_state.of_room(
                    room, self._kept, now_ms, members_only=True, choose=choose
                )
                if kept is not None:
                    return kept
            rows = _members(txn, room, at)
            chosen = [row for row in rows if choose(room.view.event(row).membership)]
            shown = room.view.render_state(chosen, now_ms)
            return shown_state.listed(map(encode_json, shown))

        return await self._db.read(read)

    async def joined_members(self, requester: Requester, room_id: str) -> dict[str, dict[str, str]]:
        """Names and avatars of those who are in the room, by user ID.

        Raises:
            MatrixError: 403 `M_FORBIDDEN` unless the requester is in the room.
        """

        def read(txn: Transaction) -> dict[str, dict[str, str]]:
            room = access.look(txn, self._states, room_id, requester)
            if room is None or room.standing is not Standing.JOINED:
                raise errors.forbidden("You are not in this room.")
            found = {}
            for user_id, name, avatar in memberships.joined_profiles(txn, room.room.room_nid):
                profile = found[user_id] = {} if name is None else {"display_name": name}
                if avatar is not None:
                    profile["avatar_url"] = avatar
            return found

        return await self._db.read(read)

    def _now_ms(self) -> int:
        return int(self._clock.seconds() * 1000)


def _members(txn: Transaction, room: RoomAccess, at: RoomToken | None) -> Iterable[EventRow]:
    room_nid = room.room.room_nid
    root = room.state_root() if at is None else _root_at(txn, room, at)
    if root is None:
        return state.current_of_type(txn, room_nid, _MEMBER).values() if at is None else []
    return room.view.state_at(root, choose=lambda key: key[0] == _MEMBER).values()


def _root_at(txn: Transaction, room: RoomAccess, at: RoomToken) -> bytes | None:
    """The root of the state at a token; None before the room's first event."""
    room_nid = room.room.room_nid
    if isinstance(at, SyncToken):
        until = at.durable if room.until is None else min(at.durable, room.until)
        row = timeline.last_known(txn, room_nid, until)
        root = state.root_at(txn, room_nid, until)
    else:
        span = Span(upto=Place(*at), until=room.until)
        rows = timeline.page(txn, room_nid, span, backwards=True, limit=1)
        row = rows[0] if rows else None
        root = row.state_after if row is not None else None
    if row is not None and not room.visible([row]):
        raise errors.forbidden("You may not see the history of the room at this point.")
    return root
