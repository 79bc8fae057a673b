"""What clients asked before `/sync` (client-server API, `GET /initialSync`, `GET
/rooms/{roomId}/initialSync`): everything as it is now, and a token for `/events`.

The second one is how clients peek into rooms that they are not in. People who peek get the room,
not what its members do: no receipts and no presence.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from twisted.internet.interfaces import IReactorTime

from homeserver.core import errors
from homeserver.core.filters import NO_ROOM_EVENT_FILTER
from homeserver.core.tokens import SyncToken
from homeserver.core.types import JsonObject
from homeserver.rooms import access, aggregations
from homeserver.rooms.access import RoomAccess, Standing
from homeserver.rooms.invite_blocking import Invites
from homeserver.rooms.read import Reading
from homeserver.rooms.timeline import MAX_LIMIT, place_token, read_page
from homeserver.rooms.view import RoomView
from homeserver.sync.streams import account_data as account_data_stream
from homeserver.sync.streams import presence as presence_stream
from homeserver.sync.streams import receipts as receipts_stream
from homeserver.users.presence import PresenceTracker
from homeserver.web.request import Requester
from storage import (
    account_data,
    clock,
    events,
    memberships,
    published,
    rooms,
    state,
    timeline,
)
from storage.database import Database
from storage.ephemeral import EphemeralStore
from storage.memberships import MembershipRow
from storage.rooms import RoomRow
from storage.state import StateStore
from storage.timeline import Span
from storage.transaction import Transaction

DEFAULT_LIMIT = 10
"""Messages for each room."""
MAX_PEOPLE = 500
"""Members of a room whose presence is given."""
_MEMBER = "m.room.member"


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """One consistent reading for one reader."""

    txn: Transaction
    states: StateStore
    requester: Requester
    limit: int
    now: int
    now_ms: int
    ephemeral: int
    ignored: frozenset[str]

    @property
    def token(self) -> str:
        return str(SyncToken(self.now, self.ephemeral))


class OldSync:
    """Answers the requests that the module names."""

    def __init__(
        self,
        db: Database,
        states: StateStore,
        ephemeral: EphemeralStore,
        presence: PresenceTracker,
        reading: Reading,
        clock: IReactorTime,
    ) -> None:
        self._db = db
        self._states = states
        self._ephemeral = ephemeral
        self._presence = presence
        self._reading = reading
        self._clock = clock

    async def initial(self, requester: Requester, limit: int, *, archived: bool) -> JsonObject:
        """Everything of the requester: rooms with up to `limit` messages each, account data,
        receipts and presence. `archived`: rooms that they left as well."""
        ended = await self._presence.user_syncing(requester.user_id, "online", requester.device_id)
        try:
            ephemeral = await self._ephemeral.position()

            def read(txn: Transaction) -> JsonObject:
                return _initial(self._snapshot(txn, requester, limit, ephemeral), archived)

            answer = await self._db.read(read)
            answer["presence"] = await presence_stream.changes(
                self._presence, requester.user_id, None, None, ephemeral
            )
        finally:
            ended()
        return answer

    async def room(self, requester: Requester, room_id: str, limit: int) -> JsonObject:
        """One room: its state, up to `limit` messages and more.

        Raises:
            MatrixError: 403 `M_FORBIDDEN` unless the requester is or was in the room, or
                everybody may look into it.
        """
        ephemeral = await self._ephemeral.position()

        def read(txn: Transaction) -> tuple[JsonObject, list[str]]:
            room = access.enter(txn, self._states, room_id, requester, state_too=True)
            snapshot = self._snapshot(txn, requester, limit, ephemeral)
            member = memberships.get(txn, room.room.room_nid, requester.user_id)
            answer = _room(snapshot, room, member)
            people: list[str] = []
            if room.standing is Standing.JOINED:
                answer["receipts"] = _receipts(snapshot, [room.room])
                people = memberships.first_others(
                    txn, room.room.room_nid, requester.user_id, ["join"], MAX_PEOPLE
                )
                people.append(requester.user_id)
            return answer, people

        answer, people = await self._db.read(read)
        answer["presence"] = list((await self._presence.events(people)).values())
        return answer

    async def event(self, requester: Requester, event_id: str) -> JsonObject:
        """An event, whatever room it is in.

        Raises:
            MatrixError: 404 `M_NOT_FOUND`, also if the requester may not see it.
        """

        def room_of(txn: Transaction) -> str | None:
            row = events.get(txn, event_id)
            if row is None:
                return None
            room = rooms.get_many(txn, [row.room_nid]).get(row.room_nid)
            return room.room_id if room is not None else None

        room_id = await self._db.read(room_of)
        if room_id is None:
            raise errors.not_found("There is no such event, or you may not see it.")
        return await self._reading.event(requester, room_id, event_id)

    def _snapshot(
        self, txn: Transaction, requester: Requester, limit: int, ephemeral: int
    ) -> _Snapshot:
        return _Snapshot(
            txn,
            self._states,
            requester,
            min(limit, MAX_LIMIT),
            clock.position(txn),
            int(self._clock.seconds() * 1000),
            ephemeral,
            account_data.ignored_users(txn, requester.user_id),
        )


def _initial(snapshot: _Snapshot, archived: bool) -> JsonObject:
    txn, user_id = snapshot.txn, snapshot.requester.user_id
    members = memberships.of_user(txn, user_id)
    rows = rooms.get_many(txn, [member.room_nid for member in members])
    invites = Invites(txn, user_id)
    found: list[JsonObject] = []
    joined: list[RoomRow] = []
    for member in members:
        row = rows[member.room_nid]
        if member.membership == "invite":
            if member.sender not in snapshot.ignored and not invites.hides(member.sender):
                found.append(_invite(snapshot, row, member))
            continue
        is_joined = member.membership == "join"
        if not is_joined and not (archived and member.membership in ("leave", "ban")):
            continue
        room = access.look(txn, snapshot.states, row.room_id, snapshot.requester)
        # Whoever declined an invite was never there.
        wanted = Standing.JOINED if is_joined else Standing.LEFT
        if room is not None and room.standing is wanted:
            found.append(_room(snapshot, room, member))
            joined += [row] if is_joined else []
    return {
        "end": snapshot.token,
        "rooms": found,
        "account_data": account_data_stream.global_changes(txn, user_id, None, snapshot.now),
        "receipts": _receipts(snapshot, joined),
    }


def _receipts(snapshot: _Snapshot, joined: list[RoomRow]) -> list[JsonObject]:
    names = {room.room_nid: room.room_id for room in joined}
    found = receipts_stream.room_changes(
        snapshot.txn, snapshot.requester.user_id, None, snapshot.now, names.keys()
    )
    return [{**event, "room_id": names[nid]} for nid, event in found.items()]


def _room(snapshot: _Snapshot, room: RoomAccess, member: MembershipRow | None) -> JsonObject:
    """A room that the reader may look into: `RoomInfo` of the specification."""
    txn, row = snapshot.txn, room.room
    root = room.state_root()
    states = state.current(txn, row.room_nid) if root is None else room.view.state_at(root)
    data = account_data_stream.room_changes(
        txn, snapshot.requester.user_id, None, snapshot.now, [row.room_nid]
    )
    answer: JsonObject = {
        "room_id": row.room_id,
        "messages": _messages(snapshot, room),
        "state": room.view.render_state(list(states.values()), snapshot.now_ms),
        "visibility": _visibility(snapshot, row),
        "account_data": data.get(row.room_nid, []),
    }
    if member is not None:
        answer["membership"] = member.membership
    return answer


def _messages(snapshot: _Snapshot, room: RoomAccess) -> JsonObject:
    """The newest messages, oldest first, between two tokens for `/messages`."""
    if snapshot.limit == 0:
        return {"start": snapshot.token, "chunk": [], "end": snapshot.token}
    page = read_page(
        room,
        Span(until=room.until),
        backwards=True,
        limit=snapshot.limit,
        wanted=NO_ROOM_EVENT_FILTER,
        ignored=snapshot.ignored,
    )
    seen = page.seen[::-1]
    rest = page.rest
    if rest is None and seen:
        rest = timeline.before(seen[0].row)
    relations = aggregations.bundle(room.view, seen, snapshot.now_ms, ignored=snapshot.ignored)
    return {
        "start": place_token(rest) if rest is not None else snapshot.token,
        "chunk": room.view.render(seen, snapshot.now_ms, relations=relations),
        "end": snapshot.token,
    }


def _visibility(snapshot: _Snapshot, row: RoomRow) -> str:
    return "public" if published.is_published(snapshot.txn, row.room_nid) else "private"


def _invite(snapshot: _Snapshot, row: RoomRow, member: MembershipRow) -> JsonObject:
    """A room that the reader is invited to, with the invite event."""
    answer: JsonObject = {
        "room_id": row.room_id,
        "membership": "invite",
        "inviter": member.sender,
        "visibility": _visibility(snapshot, row),
    }
    invite = own_member_event(
        snapshot.txn, snapshot.states, row, member, snapshot.requester, snapshot.now_ms
    )
    if invite is not None:
        answer["invite"] = invite
    return answer


def own_member_event(
    txn: Transaction,
    states: StateStore,
    room: RoomRow,
    member: MembershipRow,
    requester: Requester,
    now_ms: int,
) -> JsonObject | None:
    """Client form of the event that made the reader's membership, which they may always see.

    Of an invite by another server there may be no more than its stripped form.
    """
    row = events.get(txn, member.event_id)
    if row is not None:
        view = RoomView(txn, states, room, requester.user_id, requester.device_id)
        return view.render_state([row], now_ms)[0]
    stripped: list[JsonObject] = json.loads(member.stripped_state or "[]")
    for event in stripped:
        if event.get("type") == _MEMBER and event.get("state_key") == member.user_id:
            return {**event, "room_id": room.room_id, "event_id": member.event_id}
    return None
