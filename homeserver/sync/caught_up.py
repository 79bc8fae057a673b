"""Answers from memory for clients that have everything but what just happened.

A message wakes every client in its room. Most of them were told up to nearly the same position, and
what is new is the same for all of them but for their unread counts: so it is joined from bytes that
were made once (`homeserver.sync.journal`), without asking the database.

That is done only where the answer is what `homeserver.sync.engine` would say, and that is certain:

- The device is settled (`notifier.Settled`) at the token that the client comes with, and the rooms
  that its user was in there are known.
- Since then nothing concerned the user alone: account data, receipts of their own, messages to
  their devices, memberships, mentions. No devices changed in their rooms.
- In their rooms there were only messages and receipts: no state, redactions, replies in threads;
  no gaps. Events that relate to others are messages, too, but an event and what relates to it are
  not told together.
- The client's filter lets all that pass, and the messages are no more than it takes at once.
- None of the messages is of somebody whom the user ignores; with lazy loading, the device has the
  senders' member events.
- The device's unread counts of the rooms at the token are known.
- Of presence that changed since, it is known who shares a room with them (`presence_news`), and the
  filter lets it pass or wants none.

Everything else is answered from the database. Both are counted, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from twisted.internet.interfaces import IReactorTime

from homeserver.core.filters import Filter
from homeserver.core.push_volume import Volume
from homeserver.core.tokens import SyncToken
from homeserver.core.types import JsonObject
from homeserver.sync import room_section
from homeserver.sync.engine import SyncEngine
from homeserver.sync.journal import Journal
from homeserver.sync.notifier import Asked, Settled, Tally, Watch
from homeserver.sync.notifier import tally as new_tally
from homeserver.sync.request import SyncRequest
from homeserver.sync.room_news import NO_TIMELINE, Chunk
from homeserver.sync.room_timeline import DEFAULT_LIMIT, MAX_LIMIT
from homeserver.users.presence import PresenceTracker
from homeserver.web.responses import encode_json
from storage.unread import Count, Counts

MAX_TALLIES = 500
"""Rooms of which one device's unread counts are kept."""
MAX_TOLD = 100
"""Unread counts for which the section of a room is kept."""
MAX_TOLD_BYTES = 128 << 10
"""How much these sections may be: each has the whole chunk."""
_FEW = 200
"""Of more rooms of a user, only those with news are looked at."""


class Answer(NamedTuple):
    """An answer as bytes; `is_empty`: it tells nothing new."""

    data: bytes
    is_empty: bool


class _Reason(Exception):
    """Why an answer is not made here; a word for metrics."""


class _News(NamedTuple):
    """What a client is told of one room."""

    nid: int
    room_id: bytes
    chunk: Chunk | None
    typing: tuple[str, ...] | None


class _Told(NamedTuple):
    """The section of a room."""

    before: Tally | None
    raised: Tally | None
    data: bytes


class CaughtUp:
    """See the module.

    Parameters: `engine`, what answers otherwise; `count`, told of each request that is to be
    answered: why that is not done here, or "".
    """

    def __init__(
        self,
        journal: Journal,
        presence: PresenceTracker,
        engine: SyncEngine,
        clock: IReactorTime,
        count: Callable[[str], None],
    ) -> None:
        self._journal = journal
        self._presence = presence
        self._engine = engine
        self._members = engine.sent_members
        self._clock = clock
        self._count = count
        self.is_off = False
        """Whether nothing is answered here."""

    async def answer(
        self, request: SyncRequest, watch: Watch, *, old_names: bool, fresh: bool
    ) -> Answer | None:
        """The answer, or None if it has to come from the database.

        Parameters: `old_names`, call `state_after` as before version 1.16 of the specification;
        `fresh`, have everything that any process has done until now, whether or not this one was
        told of it.
        """
        version = watch.version
        try:
            settled = self._settled(request, watch)
            if fresh or not self._journal.is_fresh:
                await self._journal.refresh(anew=fresh)
                if watch.settled.get(request.device_id) is not settled:
                    raise _Reason("overtaken")
                settled = self._settled(request, watch)
            found = self._compose(request, settled, _state_name(request, old_names))
        except _Reason as reason:
            self._count(str(reason))
            return None
        self._count("")
        settled.version = version
        return found

    def _settled(self, request: SyncRequest, watch: Watch) -> Settled:
        settled = watch.settled.get(request.device_id)
        if self.is_off or settled is None or request.full_state or request.is_behind:
            raise _Reason("unsettled")
        if not settled.is_at(Asked(request.since, request.ephemeral_since)):
            raise _Reason("elsewhere")
        if self._engine.counts_messages:
            raise _Reason("all_counted")
        if settled.own_version != watch.own_version or settled.rooms is None:
            raise _Reason("user")
        if self._clock.seconds() >= settled.until:
            raise _Reason("long_ago")
        if settled.plain is not request.filter:
            if not _is_plain(request.filter):
                raise _Reason("filter")
            settled.plain = request.filter
        return settled

    def _compose(self, request: SyncRequest, settled: Settled, state: bytes) -> Answer:
        journal = self._journal
        self._check_user(request, settled)
        present = self._presence_section(request, settled)
        news = self._news(request, settled)
        sections = []
        members: set[int] = set()
        tallies: dict[int, Tally] = {}
        for one in news:
            tally = None
            if one.chunk is not None:
                members |= one.chunk.members
                tally = _checked(request, settled, one.nid, one.chunk)
            told = _told(one, tally, request.filter, state)
            if told.raised is not None:
                tallies[one.nid] = told.raised
            sections.append(told.data)
        now = SyncToken(journal.now, journal.ephemeral)
        if request.filter.room.lazy_load_members and not self._members.move_on(
            request.user_id, request.device_id, request.since, now.durable, members
        ):
            raise _Reason("members")
        self._move(request, settled, now, tallies, is_empty=not sections and not present)
        rooms = b',"rooms":{"join":{%b}}' % b",".join(sections) if sections else b""
        tail = settled.tail
        if not tail:
            tail = settled.tail = encode_json(settled.answer)[1:-1]
        data = b'{"next_batch":"%b",%b%b%b}' % (str(now).encode(), tail, rooms, present)
        return Answer(data, not sections and not present)

    def _check_user(self, request: SyncRequest, settled: Settled) -> None:
        """Whether nothing happened that concerns the user alone."""
        journal, (pos, ephemeral) = self._journal, settled.token[:2]
        if pos < journal.begins or ephemeral < journal.ephemeral_begins or pos > journal.now:
            raise _Reason("behind")
        if journal.users.get(request.user_id, 0) > pos:
            raise _Reason("user")
        assert settled.rooms is not None
        if journal.last_device > pos:
            devices = journal.device_rooms
            if any(devices.get(nid, 0) > pos for nid in settled.rooms):
                raise _Reason("devices")

    def _presence_section(self, request: SyncRequest, settled: Settled) -> bytes:
        """What the answer says of presence."""
        wanted, since = request.filter.presence, settled.token.ephemeral
        if wanted.matches_nothing or not self._presence.has_changed_since(since):
            return b""
        if not wanted.matches_everything:
            raise _Reason("presence_filter")
        assert settled.rooms is not None
        found = self._journal.presence.since(since, settled.rooms)
        if found is None:
            raise _Reason("presence")
        return found

    def _news(self, request: SyncRequest, settled: Settled) -> list[_News]:
        journal, (pos, ephemeral) = self._journal, settled.token[:2]
        here = settled.rooms
        assert here is not None
        rooms, typing = journal.rooms, journal.typing
        among: Iterable[int] = here
        if len(here) > _FEW:
            among = [nid for nid in (*rooms, *(typing.keys() - rooms.keys())) if nid in here]
        found = []
        now_ms = int(self._clock.seconds() * 1000)
        for nid in among:
            room, typed = rooms.get(nid), typing.get(nid)
            chunk, room_id = None, b""
            if room is not None and room.last > pos:
                chunk, room_id = room.chunk(pos, now_ms), room.room_id
                if chunk is None:
                    raise _Reason("room")
                if not chunk.length and not chunk.receipts:
                    chunk = None
                elif request.user_id in chunk.senders:
                    chunk = room.own_chunk(chunk, request.user_id, request.device_id)
            if typed is not None and typed.serial <= ephemeral:
                typed = None
            if typed is not None:
                found.append(_News(nid, typed.room_id, chunk, typed.users))
            elif chunk is not None:
                found.append(_News(nid, room_id, chunk, None))
        return found

    @staticmethod
    def _move(
        request: SyncRequest,
        settled: Settled,
        now: SyncToken,
        tallies: dict[int, Tally],
        *,
        is_empty: bool,
    ) -> None:
        """The device has everything up to `now`, once it comes back with that."""
        if tallies:
            remember(settled.counts, tallies)
        settled.came_with = Asked(request.since, request.ephemeral_since) if is_empty else None
        settled.token = now


def remember(counts: dict[int, Tally], new: Mapping[int, Tally]) -> None:
    """Add unread counts to those of a device; the longest unchanged are forgotten."""
    for nid, tally in new.items():
        counts.pop(nid, None)
        counts[nid] = tally
    while len(counts) > MAX_TALLIES:
        del counts[next(iter(counts))]


def _checked(request: SyncRequest, settled: Settled, nid: int, chunk: Chunk) -> Tally:
    """The unread counts before; raises _Reason if the chunk is not what the client is told."""
    wanted = request.filter.room.timeline
    if chunk.length > wanted.limit_within(DEFAULT_LIMIT, MAX_LIMIT):
        raise _Reason("limited")
    if settled.ignored and not settled.ignored.isdisjoint(chunk.senders):
        raise _Reason("ignored")
    tally = settled.counts.get(nid)
    if tally is None:
        raise _Reason("counts")
    return tally


def _told(one: _News, tally: Tally | None, wanted: Filter, state: bytes) -> _Told:
    """What a client is told of a room; the same bytes for those with the same unread counts."""
    chunk = one.chunk
    if chunk is None or tally is None or one.typing is not None or tally.counts.threads:
        return _section(one, tally, wanted, state)
    # A tally without threads is one object for all; the entry keeps it.
    key = (id(tally), state, wanted.room.unread_thread_notifications)
    known: _Told | None = chunk.told.get(key)
    if known is None:
        told = len(chunk.told)
        if told >= MAX_TOLD or told * len(chunk.data) >= MAX_TOLD_BYTES:
            chunk.told.clear()
        known = chunk.told[key] = _section(one, tally, wanted, state)
    return known


def _section(one: _News, tally: Tally | None, wanted: Filter, state: bytes) -> _Told:
    parts = [NO_TIMELINE]
    ephemeral = []
    new = None
    if one.chunk is not None and tally is not None:
        new = raised(tally, one.chunk)
        parts = [one.chunk.data, _unread(new.counts, wanted)]
        if one.chunk.receipts:
            ephemeral.append(one.chunk.receipts)
    if one.typing is not None:
        event = {"type": "m.typing", "content": {"user_ids": one.typing}}
        ephemeral.append(encode_json(event))
    if ephemeral:
        parts.append(b'"ephemeral":{"events":[%b]}' % b",".join(ephemeral))
    data = b'%b:{%b,"%b":{"events":[]}}' % (one.room_id, b",".join(parts), state)
    return _Told(tally, new, data)


def _is_plain(wanted: Filter) -> bool:
    """Whether a filter changes nothing of messages and of who types."""
    room = wanted.room
    return (
        wanted.event_format == "client"
        and wanted.event_fields is None
        and not wanted.profile_fields
        and room.rooms is None
        and not room.not_rooms
        and room.timeline.matches_everything
        and room.ephemeral.matches_everything
        and not room.state.include_redundant_members
    )


def _state_name(request: SyncRequest, old_names: bool) -> bytes:
    if not request.use_state_after:
        return b"state"
    return b"org.matrix.msc4222.state_after" if old_names else b"state_after"


def raised(tally: Tally, chunk: Chunk) -> Tally:
    """The unread counts with messages outside threads."""
    if tally.volume is Volume.NOTHING:
        return tally
    main = Count(0, 0) if chunk.restarts else tally.counts.main
    told = chunk.notify if tally.volume is Volume.EVERYTHING else chunk.highlight
    raised = Count(main.notify + told, main.highlight + chunk.highlight)
    return new_tally(Counts(raised, tally.counts.threads), tally.volume)


def _unread(counts: Counts, wanted: Filter) -> bytes:
    if counts.threads or wanted.room.unread_thread_notifications:
        section: JsonObject = {}
        room_section.unread(section, counts, wanted.room)
        return encode_json(section)[1:-1]
    return b'"unread_notifications":{"notification_count":%d,"highlight_count":%d}' % counts.main
