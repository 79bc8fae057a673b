"""`GET /events`: what happened since a token, as a flat list; `/sync` has taken its place.

1. Without a room: events of all rooms that the user is in, their own memberships, receipts,
   typing, account data and presence. With a room that the user is in: only what is in that room.
2. With a room that the user is not in but everybody may look into: its events, and nothing of what
   its members do. That is how clients peek.
3. Events come in the order of their positions. When there are more than the limit, the token that
   is given stands right behind the last one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from twisted.internet.interfaces import IReactorTime

from homeserver.core import errors
from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.core.tokens import SyncToken
from homeserver.core.types import JsonObject
from homeserver.core.visibility import FOREVER, HistoryVisibility
from homeserver.rooms import aggregations
from homeserver.rooms.access import RoomAccess, Standing, current_visibility
from homeserver.rooms.invite_blocking import Invites
from homeserver.rooms.view import RoomView, Seen
from homeserver.sync.long_poll import MAX_TIMEOUT
from homeserver.sync.notifier import Notifier, Watch
from homeserver.sync.old_sync import own_member_event
from homeserver.sync.streams import account_data as account_data_stream
from homeserver.sync.streams import presence as presence_stream
from homeserver.sync.streams import receipts as receipts_stream
from homeserver.sync.streams import typing as typing_stream
from homeserver.users.presence import PresenceTracker
from homeserver.web.request import Requester
from storage import account_data, clock, memberships, rooms, timeline
from storage.database import Database
from storage.ephemeral import EphemeralStore
from storage.events import EventRow
from storage.memberships import MembershipRow
from storage.rooms import RoomRow
from storage.state import StateStore
from storage.transaction import Transaction

DEFAULT_LIMIT = 10
MAX_LIMIT = 500
DEFAULT_TIMEOUT = 30_000
"""Milliseconds."""
_CHUNK = 200
_MAX_CHUNKS = 10
"""Events that are looked at before the token moves on: 2,000."""


@dataclass(frozen=True, slots=True)
class EventsRequest:
    """The parameters of a request, parsed."""

    requester: Requester
    start: SyncToken | None
    """None: from now on."""
    room_id: str | None
    timeout_ms: int
    limit: int
    on_stop: Callable[[Callable[[], None]], None]
    """Is given a function to call when the server stops."""


@dataclass(slots=True)
class _Found:
    """What the log says."""

    upto: int
    """The position up to which it was read."""
    is_complete: bool
    chunk: list[JsonObject] = field(default_factory=list)
    joined: dict[str, int] = field(default_factory=dict)
    """Numbers of the rooms in which typing is shown, by ID."""


class EventStream:
    """Answers `/events`."""

    def __init__(
        self,
        db: Database,
        states: StateStore,
        notifier: Notifier,
        ephemeral: EphemeralStore,
        presence: PresenceTracker,
        clock: IReactorTime,
    ) -> None:
        self._db = db
        self._states = states
        self._notifier = notifier
        self._ephemeral = ephemeral
        self._presence = presence
        self._clock = clock

    async def events(self, request: EventsRequest) -> JsonObject:
        """`start`, `chunk` and `end`: as soon as there is something, or after the timeout.

        Raises:
            MatrixError: 403 `M_FORBIDDEN` for a room that the requester may not look into.
        """
        requester, peeked = request.requester, None
        if request.room_id is not None:
            peeked = await self._db.read(self._peeked, requester, request.room_id)
        if peeked is not None:
            with self._notifier.peek(requester.user_id, peeked) as watch:
                return await self._poll(request, watch)
        ended = await self._presence.user_syncing(requester.user_id, "online", requester.device_id)
        try:
            return await self._poll(request, None)
        finally:
            ended()

    def _peeked(self, txn: Transaction, requester: Requester, room_id: str) -> int | None:
        """The number of a room that the requester is not in; None if they are."""
        room = _enter(txn, self._states, requester, room_id)
        return room.room.room_nid if room.standing is Standing.PEEKING else None

    async def _poll(self, request: EventsRequest, peek: Watch | None) -> JsonObject:
        ends = self._clock.seconds() + min(request.timeout_ms, MAX_TIMEOUT) / 1000
        stopping: list[bool] = []
        watch = peek

        def stop() -> None:
            stopping.append(True)
            if watch is not None:
                self._notifier.release(watch.wake())

        request.on_stop(stop)
        start = request.start
        since = start
        while True:
            if peek is None:
                watch = await self._notifier.watch(request.requester.user_id)
            assert watch is not None
            version = watch.version
            if since is None:
                start = since = await self._now()
            chunk, now, is_complete = await self._look(request, since)
            left = ends - self._clock.seconds()
            is_over = left <= 0 or bool(stopping) or self._notifier.is_stopped
            # A token of the future is from before a backup was restored.
            if chunk or is_over or since.durable > now.durable:
                return {"start": str(start), "chunk": chunk, "end": str(now)}
            since = now
            if is_complete:
                await self._notifier.wait(watch, version, left)

    async def _now(self) -> SyncToken:
        ephemeral = await self._ephemeral.position()
        return SyncToken(await self._db.read(clock.position), ephemeral)

    async def _look(
        self, request: EventsRequest, since: SyncToken
    ) -> tuple[list[JsonObject], SyncToken, bool]:
        ephemeral = await self._ephemeral.position()
        now_ms = int(self._clock.seconds() * 1000)
        found = await self._db.read(self._read, request, since.durable, now_ms)
        names = {nid: room_id for room_id, nid in found.joined.items()}
        typing = await typing_stream.room_changes(
            self._ephemeral, found.joined, since.ephemeral, ephemeral
        )
        found.chunk += [{**event, "room_id": names[nid]} for nid, event in typing.items()]
        if request.room_id is None:
            found.chunk += await presence_stream.changes(
                self._presence, request.requester.user_id, None, since.ephemeral, ephemeral
            )
        return found.chunk, SyncToken(found.upto, ephemeral), found.is_complete

    # In a database thread

    def _read(self, txn: Transaction, request: EventsRequest, since: int, now_ms: int) -> _Found:
        now = clock.position(txn)
        reading = _Reading(txn, self._states, request, since, now_ms)
        if request.room_id is None:
            return reading.everything(now)
        room = _enter(txn, self._states, request.requester, request.room_id)
        return reading.one_room(room, now)


def _enter(txn: Transaction, states: StateStore, requester: Requester, room_id: str) -> RoomAccess:
    """A room that the requester is in or may peek into."""
    room = rooms.get(txn, room_id)
    if room is not None and room.state_root is not None and room.version in ROOM_VERSIONS:
        view = RoomView(txn, states, room, requester.user_id, requester.device_id)
        member = memberships.get(txn, room.room_nid, requester.user_id)
        if member is not None and member.membership == "join":
            return RoomAccess(view, Standing.JOINED, None)
        if current_visibility(view) is HistoryVisibility.WORLD_READABLE:
            return RoomAccess(view, Standing.PEEKING, None)
    raise errors.forbidden("You are not in this room, or it does not exist.")


class _Reading:
    """One computation."""

    def __init__(
        self,
        txn: Transaction,
        states: StateStore,
        request: EventsRequest,
        since: int,
        now_ms: int,
    ) -> None:
        self._txn = txn
        self._states = states
        self._request = request
        self._user_id = request.requester.user_id
        self._since = since
        self._now_ms = now_ms
        self._ignored = account_data.ignored_users(txn, self._user_id)

    def one_room(self, room: RoomAccess, now: int) -> _Found:
        """What is new in one room."""
        found = self._events({room.room.room_nid: room}, {}, now)
        if room.standing is Standing.JOINED:
            found.joined = {room.room.room_id: room.room.room_nid}
            self._add_rest(found, {room.room.room_nid: room.room})
        return found

    def everything(self, now: int) -> _Found:
        """What is new for the user."""
        members = {row.room_nid: row for row in memberships.of_user(self._txn, self._user_id)}
        changes = memberships.changes_of_user(self._txn, self._user_id, self._since, now)
        changed = {change.room_nid for change in changes}
        wanted = {
            nid
            for nid, row in members.items()
            if row.membership == "join" or (nid in changed and not row.forgotten)
        }
        rows = rooms.get_many(self._txn, wanted)
        here = {nid: row for nid, row in rows.items() if members[nid].membership == "join"}
        open_rooms: dict[int, RoomAccess] = {}
        # Where the user was not in the room there is only their own membership.
        closed: dict[int, JsonObject] = {}
        for nid, row in rows.items():
            member = members[nid]
            room = self._access(row, member)
            if room is not None:
                open_rooms[nid] = room
            known = self._since if room is None else room.until
            if known is not None and member.pos > known:
                event = self._own(row, member)
                closed |= {member.pos: event} if event is not None else {}
        found = self._events(open_rooms, closed, now)
        found.joined = {row.room_id: nid for nid, row in here.items()}
        self._add_rest(found, here)
        found.chunk += account_data_stream.global_changes(
            self._txn, self._user_id, self._since, found.upto
        )
        return found

    def _access(self, row: RoomRow, member: MembershipRow) -> RoomAccess | None:
        requester = self._request.requester
        if row.state_root is None or row.version not in ROOM_VERSIONS:
            return None
        view = RoomView(self._txn, self._states, row, requester.user_id, requester.device_id)
        if member.membership == "join":
            return RoomAccess(view, Standing.JOINED, None)
        since, until = view.stay
        if since is None or until is None or until == FOREVER or until <= self._since:
            return None
        return RoomAccess(view, Standing.LEFT, until)

    def _own(self, row: RoomRow, member: MembershipRow) -> JsonObject | None:
        if member.membership == "invite" and (
            member.sender in self._ignored or Invites(self._txn, self._user_id).hides(member.sender)
        ):
            return None
        return own_member_event(
            self._txn, self._states, row, member, self._request.requester, self._now_ms
        )

    def _events(
        self, open_rooms: Mapping[int, RoomAccess], own: Mapping[int, JsonObject], now: int
    ) -> _Found:
        """Events of rooms, and those of `own`, by position, up to the limit (at least 1)."""
        limit = max(1, min(self._request.limit, MAX_LIMIT))
        shown = dict(own)
        busy = [nid for nid, room in open_rooms.items() if room.room.last_pos > self._since]
        upto, is_complete = self._since, False
        for _ in range(_MAX_CHUNKS):
            found = timeline.news(self._txn, busy, upto, now, _CHUNK) if busy else []
            shown |= self._render(open_rooms, found)
            is_complete = len(found) < _CHUNK
            upto = now if is_complete else found[-1].pos or now
            if is_complete or len(shown) >= limit:
                break
        places = sorted(pos for pos in shown if pos <= upto)
        if len(places) > limit:
            places = places[:limit]
            upto, is_complete = places[-1], False
        return _Found(upto, is_complete, [shown[pos] for pos in places])

    def _render(
        self, open_rooms: Mapping[int, RoomAccess], rows: Sequence[EventRow]
    ) -> dict[int, JsonObject]:
        by_room: dict[int, list[EventRow]] = {}
        for row in rows:
            if row.state_key is not None or row.sender not in self._ignored:
                by_room.setdefault(row.room_nid, []).append(row)
        shown: dict[int, JsonObject] = {}
        for nid, chosen in by_room.items():
            room = open_rooms[nid]
            seen: list[Seen] = room.visible(chosen)
            relations = aggregations.bundle(room.view, seen, self._now_ms, ignored=self._ignored)
            events = room.view.render(seen, self._now_ms, relations=relations)
            shown |= {item.row.pos or 0: e for item, e in zip(seen, events, strict=True)}
        return shown

    def _add_rest(self, found: _Found, here: Mapping[int, RoomRow]) -> None:
        """Receipts and account data of rooms."""
        receipts = receipts_stream.room_changes(
            self._txn, self._user_id, self._since, found.upto, here.keys()
        )
        for nid, event in receipts.items():
            found.chunk.append({**event, "room_id": here[nid].room_id})
        if not here:
            return
        data = account_data_stream.room_changes(
            self._txn, self._user_id, self._since, found.upto, here.keys()
        )
        for nid, events in data.items():
            found.chunk += [{**event, "room_id": here[nid].room_id} for event in events]
