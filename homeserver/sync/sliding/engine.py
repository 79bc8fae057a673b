"""Sliding sync: positions in, answer out (MSC4186).

Everything durable is read in one transaction, as for `/sync`, at one position of the clock. What
the client knows is in two places: its token says up to when, `Sent` which rooms, and of those
that it stopped following, up to when.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from homeserver.core.errors import unknown_pos
from homeserver.core.filters import NO_FILTER
from homeserver.core.tokens import SlidingToken
from homeserver.core.types import JsonObject
from homeserver.sync import gone_rooms
from homeserver.sync.lazy_members import NOTHING as NO_MEMBERS
from homeserver.sync.lazy_members import SentMembers
from homeserver.sync.request import Snapshot, SyncRequest
from homeserver.sync.sliding import connection, extensions
from homeserver.sync.sliding.connection import Connections, Sent, SentRoom
from homeserver.sync.sliding.followed import Follows, follow
from homeserver.sync.sliding.joined import Section, Task, read_joined
from homeserver.sync.sliding.others import read_others
from homeserver.sync.sliding.request import RoomConfig, SlidingRequest
from homeserver.sync.sliding.room_list import GONE, Chosen, RoomTypes, choose
from storage import account_data, receipts, user_news
from storage.sliding_positions import Connection
from storage.state import StateStore
from storage.transaction import Transaction
from storage.user_news import is_after
from storage.windows import ListedRoom

MAX_NEW_ROOMS = 500
"""Rooms in one answer of which the client knows nothing."""
MAX_REMEMBERED = 500
"""Pairs of `required_state` that are remembered of one room though they are not asked for now."""


@dataclass(frozen=True, slots=True)
class Found:
    """What the log says, and what the rest of the answer needs to know."""

    now: int
    answer: JsonObject
    sent: Sent | None
    """What the connection was sent with this answer; None: as at its token."""
    touch: bool
    """Whether to note that the connection is in use."""
    typing: Mapping[int, tuple[str, bool]]
    """Rooms to tell of who types in them: their ID, and whether they are new to the client."""
    acknowledged: int | None
    """Messages to the device up to here arrived: they can be deleted."""
    is_empty: bool
    follows: Follows | None
    """What the connection follows with this answer, if the next one may come from memory."""
    members: frozenset[int]
    """Numbers of the member events in it, where members are loaded lazily."""


class SlidingEngine:
    """Computes the durable part of answers; used in database threads."""

    def __init__(self, states: StateStore) -> None:
        self._states = states
        self._connections = Connections()
        self._types = RoomTypes()
        self.members: SentMembers[tuple[int, int]] = SentMembers("sliding_sent_members")
        self.caches = (*self._connections.caches, *self._types.caches, *self.members.caches)

    def read(self, txn: Transaction, request: SlidingRequest, now_ms: int) -> Found:
        """What happened since the position of the request.

        Raises:
            MatrixError: 400 `M_UNKNOWN_POS` if the position is not known.
        """
        sent, touch = connection.NOTHING, False
        if request.pos is not None:
            position = request.pos.connection
            sent, touch = self._connections.read(txn, _connection(request), position, now_ms)
        snapshot = self._snapshot(txn, request, now_ms)
        answer = _Answer(snapshot, request, sent, self._types)
        return answer.compute(touch)

    def told(self, request: SlidingRequest, token: SlidingToken, found: Found) -> None:
        """The answer goes out with this token: a connection that comes with it has its members."""
        now = (token.connection, token.durable)
        name = members_key(request)
        self.members.sent(request.user_id, name, point(request.pos), now, found.members)

    def write(self, txn: Transaction, request: SlidingRequest, sent: Sent, now_ms: int) -> int:
        """Store what was sent in answer to the request; the number for the token.

        Raises:
            MatrixError: 400 `M_UNKNOWN_POS` if the connection began anew meanwhile.
        """
        parent = request.pos.connection if request.pos is not None else 0
        return self._connections.write(txn, _connection(request), parent, sent, now_ms)

    def _snapshot(self, txn: Transaction, request: SlidingRequest, now_ms: int) -> Snapshot:
        user_id, device_id = request.user_id, request.device_id
        since = request.pos.durable if request.pos is not None else None
        newest = user_news.newest(txn, user_id, device_id)
        if since is not None and since > newest.now:
            # The position is from before a backup was restored.
            raise unknown_pos()
        plain = SyncRequest(
            user_id=user_id,
            device_id=device_id,
            since=since,
            ephemeral_since=request.pos.ephemeral if request.pos is not None else None,
            to_device_since=None,
            filter=NO_FILTER,
            use_state_after=True,
        )
        known = NO_MEMBERS
        if since is not None:
            known = self.members.known(user_id, members_key(request), point(request.pos))
        ignored = account_data.ignored_by(user_id, json.loads(newest.ignored or "{}"))
        return Snapshot(txn, self._states, plain, newest, now_ms, ignored, known)


def _connection(request: SlidingRequest) -> Connection:
    return Connection(request.user_id, request.device_id, request.conn_id)


def point(token: SlidingToken | None) -> tuple[int, int] | None:
    """What tells tokens apart for `SentMembers`."""
    return None if token is None else (token.connection, token.durable)


def members_key(request: SlidingRequest) -> str:
    """A connection, in place of a device, for `SentMembers`."""
    return f"{request.device_id}\n{request.conn_id}"


class _Answer:
    """One computation."""

    def __init__(
        self, snapshot: Snapshot, request: SlidingRequest, sent: Sent, types: RoomTypes
    ) -> None:
        self._snapshot = snapshot
        self._request = request
        self._sent = sent
        self._since = snapshot.request.since
        chosen = choose(snapshot, request, sent.rooms.keys(), types)
        self._chosen = _within_bounds(chosen, sent)
        self._has_own_data: set[int] | None = None

    def compute(self, touch: bool) -> Found:
        chosen = self._chosen
        tasks = self._tasks()
        here = [task for task in tasks if task.listed.membership == "join"]
        rest = [task for task in tasks if task.listed.membership != "join"]
        sections = read_joined(self._snapshot, here) | read_others(self._snapshot, rest)
        rooms = {}
        for nid, section in sections.items():
            if section.answer is not None:
                rooms[chosen.rooms[nid].room_id] = self._finish(nid, section.answer)
        if self._since is not None and is_after(self._snapshot.newest.gone, self._since):
            present = {room.room_id for room in chosen.rooms.values()}
            gone_rooms.add_known(self._snapshot, self._sent.rooms.keys(), present, rooms)
        asked = extensions.asked_for(self._request.extensions)
        sent = Sent(self._sent_rooms(sections), asked)
        more = extensions.read(self._snapshot, self._request, self._sent, chosen, sections)
        answer: JsonObject = {
            "lists": {name: {"count": count} for name, count in chosen.counts.items()},
            "rooms": rooms,
            "extensions": more.answer,
        }
        return Found(
            now=self._snapshot.now,
            answer=answer,
            sent=None if sent == self._sent and self._since is not None else sent,
            touch=touch,
            typing=more.typing,
            acknowledged=more.acknowledged,
            is_empty=not rooms and more.is_empty,
            follows=follow(self._snapshot, self._request, chosen, sent.rooms, answer),
            members=frozenset(self._snapshot.sent_members),
        )

    def _finish(self, nid: int, answer: JsonObject) -> JsonObject:
        """Put into a section what is the same for all rooms."""
        room, old = self._chosen.rooms[nid], self._sent.rooms.get(nid)
        is_dm = room.room_id in self._chosen.direct
        if is_dm or (old is not None and old.is_dm):
            answer["is_dm"] = is_dm
        answer["membership"] = room.membership
        if nid in self._chosen.lists:
            answer["lists"] = self._chosen.lists[nid]
        return answer

    # What to look at

    def _tasks(self) -> list[Task]:
        chosen = self._chosen
        read = self._read_by_user()
        tasks = []
        for nid, config in chosen.configs.items():
            room, old = chosen.rooms[nid], self._sent.rooms.get(nid)
            if old is None:
                tasks.append(Task(room, config, None, None, True))
                continue
            is_dm = room.room_id in chosen.direct
            is_forced = old.is_dm != is_dm or (room.membership == "join" and nid in read)
            since = old.upto if old.upto is not None else self._since
            assert since is not None, "what was sent was sent with a token"
            wants_more = (
                config.timeline_limit > old.config.timeline_limit
                or not config.required_state.pairs <= old.config.required_state.pairs
            )
            if is_forced or wants_more or _newest(room) > since:
                tasks.append(Task(room, config, since, old.config, is_forced))
        return tasks

    def _read_by_user(self) -> set[int]:
        """Rooms whose unread counts the user changed with a receipt."""
        if self._since is None:
            return set()
        old = [room.upto for room in self._sent.rooms.values() if room.upto is not None]
        since = min([self._since, *old])
        if not is_after(self._snapshot.newest.own_receipt, since):
            return set()
        txn, user_id, now = self._snapshot.txn, self._request.user_id, self._snapshot.now
        found = receipts.rooms_of_user(txn, user_id, self._since, now)
        if since < self._since:
            earlier = receipts.rooms_of_user(txn, user_id, since, self._since)
            behind = {nid for nid, room in self._sent.rooms.items() if room.upto is not None}
            found |= earlier & behind
        return found

    # What was sent

    def _sent_rooms(self, sections: Mapping[int, Section]) -> Mapping[int, SentRoom]:
        """What the connection was sent of each room, this answer included."""
        chosen, since = self._chosen, self._since
        rooms: dict[int, SentRoom] = {}
        for nid, old in self._sent.rooms.items():
            room = chosen.rooms.get(nid)
            if room is None:
                continue  # The user has nothing to do with it any more.
            if nid not in chosen.configs:
                if old.upto is None and self._has_news(room):
                    old = old._replace(upto=since)
                rooms[nid] = old
        bits = extensions.BitsOf(self._request.extensions, chosen)
        # Of nearly all rooms nothing changes, and they have few configurations between them.
        kept: dict[tuple[int, int], RoomConfig] = {}
        for nid, config in chosen.configs.items():
            room, known = chosen.rooms[nid], self._sent.rooms.get(nid)
            section = sections.get(nid)
            if room.membership in GONE and room.sender == self._request.user_id:
                continue  # The client knows that the user left: it was just told.
            if known is None or section is not None:
                remembered = _remembered(config, known, section)
            else:
                pair = (id(config), id(known.config))
                remembered = kept.get(pair) or _remembered(config, known, None)
                kept[pair] = remembered
            is_dm = room.room_id in chosen.direct
            new = SentRoom(None, remembered, is_dm, bits.of(nid))
            rooms[nid] = known if known is not None and _is_same(new, known) else new
        return rooms

    def _has_news(self, room: ListedRoom) -> bool:
        """Whether something happened in a room that the client is not told of."""
        since, newest = self._since, self._snapshot.newest
        if since is None:
            return False
        if _newest(room) > since or (room.last_receipt or 0) > since:
            return True
        if not is_after(newest.account_data, since):
            return False
        if self._has_own_data is None:
            self._has_own_data = account_data.changed_rooms(
                self._snapshot.txn, self._request.user_id, since, self._snapshot.now
            )
        return room.room_nid in self._has_own_data


def _within_bounds(chosen: Chosen, sent: Sent) -> Chosen:
    """Without those rooms new to the client that are too many for one answer.

    They are new in the next answer, too, which therefore comes at once.
    """
    new = [nid for nid in chosen.configs if nid not in sent.rooms]
    if len(new) <= MAX_NEW_ROOMS:
        return chosen
    new.sort(key=lambda nid: nid not in chosen.subscribed)
    later = set(new[MAX_NEW_ROOMS:])
    configs = {nid: config for nid, config in chosen.configs.items() if nid not in later}
    return replace(chosen, configs=configs)


def _is_same(new: SentRoom, old: SentRoom) -> bool:
    if new.config is not old.config:
        return new == old
    return new[0] == old[0] and new[2:] == old[2:]


def _newest(room: ListedRoom) -> int:
    """The position of the newest in a room that the user is told of."""
    return room.last_pos if room.membership == "join" else room.member_pos


def _remembered(config: RoomConfig, old: SentRoom | None, section: Section | None) -> RoomConfig:
    """What the client has of a room after an answer with this section.

    Events: those of the answer, behind a gap; else those that it had, too. State: what it has
    that it does not ask for now, unless that may be out of date.
    """
    if old is None or (section is not None and section.is_fresh):
        return config
    limit, required = old.config.timeline_limit, old.config.required_state
    if section is not None and section.is_gap:
        limit = config.timeline_limit
    else:
        limit = max(limit, config.timeline_limit)
    both = required | config.required_state
    has_new = section is not None and section.has_new_state
    if has_new or len(both.pairs) > MAX_REMEMBERED:
        both = config.required_state
    if limit == old.config.timeline_limit and both == required:
        return old.config
    return RoomConfig(limit, both)
