"""Answers from memory for connections that have everything but messages that just came.

As `homeserver.sync.caught_up` for `/sync`, from the same journal. The answer is what
`homeserver.sync.sliding.engine` would say, and that is certain:

- The connection was answered by this process, and comes with the position that it was given, or
  with one since when nothing was new; it asks for what it asked for then (`followed`).
- Its position is still kept: where other processes share the database, that is asked.
- Since then nothing concerned the user alone, and no devices changed in their rooms.
- In all their rooms there were only messages and receipts that are the same for everybody, and in
  those that the connection follows, no more messages than it takes.
- Which rooms are in windows has not changed: see `followed`.
- None of the messages is of somebody whom the user ignores; where members are lazy, the client has
  those who sent them. The unread counts of the room are known.

Everything else is answered from the database. Both are counted, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from twisted.internet.interfaces import IReactorTime

from homeserver.cache import Cache
from homeserver.core.tokens import SlidingToken
from homeserver.sync.caught_up import raised, remember
from homeserver.sync.journal import Journal
from homeserver.sync.lazy_members import SentMembers
from homeserver.sync.notifier import Notifier, Tally, Watch
from homeserver.sync.room_news import Chunk, RoomNews
from homeserver.sync.sliding.engine import members_key, point
from homeserver.sync.sliding.followed import Followed, Follows, asks_the_same, size
from homeserver.sync.sliding.request import SlidingRequest
from homeserver.web.responses import encode_json
from storage import sliding_positions
from storage.database import Database
from storage.sliding_positions import Connection

SETTLED_FOR = 60.0
"""Seconds after which the database is asked even if no hint came."""
_FEW = 200
"""Of more rooms of a user, only those with news are looked at."""
_SHARED = b'"timeline":{"events":'


class Answer(NamedTuple):
    """An answer as bytes; `is_empty`: it tells nothing new."""

    data: bytes
    is_empty: bool


class Seen(NamedTuple):
    """What was known of a user before an answer was read from the database."""

    watch: Watch
    own_version: int
    rooms: frozenset[int]
    rooms_at: int

    @classmethod
    def of(cls, watch: Watch) -> Seen:
        """As it is now."""
        return cls(watch, watch.own_version, watch.rooms, watch.rooms_at)


class _Reason(Exception):
    """Why an answer is not made here; a word for metrics."""


@dataclass(slots=True)
class _Connected:
    """A connection that has everything up to a token."""

    seen: Seen
    token: SlidingToken
    came_with: SlidingToken | None
    """Between this and `token` nothing was new."""
    until: float
    request: SlidingRequest
    follows: Follows
    tallies: dict[int, Tally]
    """Unread counts of rooms at `token`."""


@dataclass(slots=True)
class _News:
    """What an answer tells."""

    sections: list[bytes] = field(default_factory=list)
    receipts: list[bytes] = field(default_factory=list)
    typing: list[bytes] = field(default_factory=list)
    members: set[int] = field(default_factory=set)
    tallies: dict[int, Tally] = field(default_factory=dict)
    stamps: dict[int, int] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        return not (self.sections or self.receipts or self.typing)


class CaughtUpConnections:
    """See the module; used on the reactor thread.

    Parameters: `members`, what clients have of lazy members; `count`, told of each request that is
    to be answered: why that is not done here, or "".
    """

    def __init__(
        self,
        db: Database,
        journal: Journal,
        notifier: Notifier,
        members: SentMembers[tuple[int, int]],
        clock: IReactorTime,
        count: Callable[[str], None],
    ) -> None:
        self._db = db
        self._journal = journal
        self._notifier = notifier
        self._members = members
        self._clock = clock
        self._count = count
        self._devices: Cache[tuple[str, str], dict[str, _Connected]] = Cache(
            "sliding_caught_up", _size, share=0.1, lives_s=SETTLED_FOR, seconds=clock.seconds
        )
        self.caches = (self._devices,)
        self.is_off = False
        """Whether nothing is answered here."""

    def settle(
        self,
        request: SlidingRequest,
        seen: Seen,
        follows: Follows | None,
        token: SlidingToken,
        *,
        is_empty: bool,
    ) -> None:
        """An answer from the database has this token; `is_empty`: it tells nothing new."""
        device = (request.user_id, request.device_id)
        known = self._devices.get(device) or {}
        old = known.pop(request.conn_id, None)
        if follows is None or follows.moved_at > seen.rooms_at or self.is_off:
            return
        tallies: dict[int, Tally] = {}
        if old is not None and request.pos in (old.token, old.came_with) and old.seen == seen:
            # Of the other rooms the counts are what they were.
            tallies = old.tallies
        remember(tallies, follows.tallies)
        came_with = request.pos if is_empty else None
        until = self._clock.seconds() + SETTLED_FOR
        new = _Connected(seen, token, came_with, until, request, follows, tallies)
        known[request.conn_id] = new
        self._devices[device] = known
        self._journal.begin(token.durable, token.ephemeral)

    def forget(self, request: SlidingRequest) -> None:
        """The positions of the connection change; of a device that begins one, those of all."""
        device = (request.user_id, request.device_id)
        if request.pos is None:
            self._devices.pop(device, None)
        elif (known := self._devices.get(device)) is not None:
            known.pop(request.conn_id, None)

    async def answer(self, request: SlidingRequest, watch: Watch, *, fresh: bool) -> Answer | None:
        """The answer, or None if it has to come from the database. `fresh`: see
        `homeserver.sync.caught_up`."""
        if request.pos is None:
            return None
        try:
            known = self._connected(request, watch)
            if not self._notifier.is_alone:
                name = Connection(request.user_id, request.device_id, request.conn_id)
                number = request.pos.connection
                if not await self._db.query(sliding_positions.is_kept, name, number):
                    raise _Reason("unknown")
            if fresh or not self._journal.is_fresh:
                await self._journal.refresh(anew=fresh)
            if self._connected(request, watch) is not known:
                raise _Reason("overtaken")
            found = self._compose(request, known)
        except _Reason as reason:
            self._count(str(reason))
            return None
        self._count("")
        return found

    def _connected(self, request: SlidingRequest, watch: Watch) -> _Connected:
        connections = self._devices.get((request.user_id, request.device_id)) or {}
        known = connections.get(request.conn_id)
        if known is None or known.seen.watch is not watch or watch.is_dropped:
            raise _Reason("unsettled")
        if request.pos not in (known.token, known.came_with):
            raise _Reason("elsewhere")
        if known.seen.own_version != watch.own_version:
            raise _Reason("user")
        if self._clock.seconds() >= known.until:
            raise _Reason("long_ago")
        if not asks_the_same(request, known.request):
            raise _Reason("asked")
        return known

    def _compose(self, request: SlidingRequest, known: _Connected) -> Answer:
        self._check_user(request, known)
        news = self._news(request, known)
        assert request.pos is not None
        journal, follows = self._journal, known.follows
        now = SlidingToken(known.token.connection, journal.now, journal.ephemeral)
        name, since = members_key(request), point(request.pos)
        coming = (now.connection, now.durable)
        if not self._members.move_on(request.user_id, name, since, coming, news.members):
            raise _Reason("members")
        remember(known.tallies, news.tallies)
        follows.stamps.update(news.stamps)
        known.came_with = request.pos if news.is_empty else None
        known.token = now
        data = b'{"pos":"%b","lists":%b,"rooms":{%b},"extensions":{%b}}' % (
            str(now).encode(),
            follows.lists,
            b",".join(news.sections),
            b",".join(_extensions(follows, now.durable, news)),
        )
        return Answer(data, news.is_empty)

    def _check_user(self, request: SlidingRequest, known: _Connected) -> None:
        """Whether nothing happened that concerns the user alone."""
        journal, (_, pos, ephemeral) = self._journal, known.token
        if pos < journal.begins or ephemeral < journal.ephemeral_begins or pos > journal.now:
            raise _Reason("behind")
        if journal.users.get(request.user_id, 0) > pos:
            raise _Reason("user")
        if journal.last_device > pos:
            devices = journal.device_rooms
            if any(devices.get(nid, 0) > pos for nid in known.seen.rooms):
                raise _Reason("devices")

    def _news(self, request: SlidingRequest, known: _Connected) -> _News:
        journal, pos = self._journal, known.token.durable
        rooms, typing, here = journal.rooms, journal.typing, known.seen.rooms
        among: Iterable[int] = here
        if len(here) > _FEW:
            among = [nid for nid in (*rooms, *(typing.keys() - rooms.keys())) if nid in here]
        news = _News()
        for nid in among:
            room, followed = rooms.get(nid), known.follows.rooms.get(nid)
            if room is not None and room.last > pos:
                if followed is None:
                    _check_elsewhere(room, nid, known)
                else:
                    self._add_room(request, known, nid, room, followed, news)
            typed = typing.get(nid)
            if typed is None or followed is None or typed.serial <= known.token.ephemeral:
                continue
            if followed.has_typing:
                event = {"type": "m.typing", "content": {"user_ids": typed.users}}
                news.typing.append(b"%b:%b" % (typed.room_id, encode_json(event)))
        return news

    def _add_room(
        self,
        request: SlidingRequest,
        known: _Connected,
        nid: int,
        room: RoomNews,
        followed: Followed,
        news: _News,
    ) -> None:
        pos, follows = known.token.durable, known.follows
        chunk = room.chunk(pos, int(self._clock.seconds() * 1000))
        if chunk is None:
            raise _Reason("room")
        if chunk.receipts and followed.has_receipts:
            news.receipts.append(b"%b:%b" % (room.room_id, chunk.receipts))
        if not chunk.length:
            return
        if request.user_id in chunk.senders:
            chunk = room.own_chunk(chunk, request.user_id, request.device_id)
        if chunk.length > followed.limit:
            raise _Reason("limited")
        if not follows.ignored.isdisjoint(chunk.senders):
            raise _Reason("ignored")
        bumped = room.bumped(pos)
        if bumped and nid in follows.loose:
            raise _Reason("window")
        tally = known.tallies.get(nid)
        if tally is None:
            raise _Reason("counts")
        if followed.is_lazy:
            news.members |= chunk.members
        tally = news.tallies[nid] = raised(tally, chunk)
        stamp = news.stamps[nid] = bumped or follows.stamps[nid]
        news.sections.append(_section(room, chunk, followed, tally, stamp))


def _check_elsewhere(room: RoomNews, nid: int, known: _Connected) -> None:
    """Whether what is new in a room that is not followed makes no difference."""
    pos, follows = known.token.durable, known.follows
    if not room.is_known(pos):
        raise _Reason("room")
    if nid in follows.waning or (nid in follows.loose and room.bumped(pos)):
        raise _Reason("window")


def _section(room: RoomNews, chunk: Chunk, followed: Followed, tally: Tally, stamp: int) -> bytes:
    # The chunk is that of `/sync`, where these are members of an object.
    assert chunk.data.startswith(_SHARED) and chunk.data.endswith(b"}")
    return (
        b'%b:{"timeline":%b,"num_live":%d,"notification_count":%d,"highlight_count":%d,'
        b'"bump_stamp":%d,%b}'
        % (
            room.room_id,
            chunk.data[len(_SHARED) : -1],
            chunk.length,
            *tally.counts.main,
            stamp,
            followed.tail,
        )
    )


def _extensions(follows: Follows, now: int, news: _News) -> Iterable[bytes]:
    if follows.to_device:
        yield b'"to_device":{"next_batch":"%d","events":[]}' % now
    if follows.e2ee is not None:
        yield b'"e2ee":' + follows.e2ee
    if news.receipts:
        yield b'"receipts":{"rooms":{%b}}' % b",".join(news.receipts)
    if news.typing:
        yield b'"typing":{"rooms":{%b}}' % b",".join(news.typing)


def _size(device: tuple[str, str], known: dict[str, _Connected]) -> int:
    return sum(size(one.follows.stamps) for one in known.values())
