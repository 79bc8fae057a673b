"""Searching the texts of rooms (client-server API, "Server Side Search").

1. Rooms that the reader is in or was in, and only what they may see of them; a room that was
   forgotten is not one of them. A filter's rooms stand for those that they replaced, too.
2. What is searched for is words, all of which an event must have; nothing in it is an operator.
3. Ordered by relevance or by time. A token says behind which result to go on.
4. The count is of what was looked at: at least so many results there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from twisted.internet.interfaces import IReactorTime

from homeserver.core import words
from homeserver.core.filters import NO_ROOM_EVENT_FILTER, RoomEventFilter
from homeserver.core.texts import text_of
from homeserver.core.types import JsonObject, StateKey
from homeserver.core.words import Query
from homeserver.rooms import access, aggregations
from homeserver.rooms.access import RoomAccess, Standing
from homeserver.rooms.context import beside, end_of
from homeserver.rooms.search_tokens import SearchToken
from homeserver.rooms.searchable import SearchableTexts
from homeserver.rooms.timeline import Page, place_token, read_page
from homeserver.rooms.view import RoomView, Seen
from homeserver.web.request import Requester
from storage import account_data, events, memberships, message_words, rooms, state, timeline
from storage.database import Database
from storage.message_words import Hit, Scope
from storage.state import StateStore
from storage.timeline import Wanted
from storage.transaction import Transaction

DEFAULT_LIMIT = 10
MAX_LIMIT = 100
MAX_LOOKED_AT = 200
"""Matches that are looked at for one page."""
MAX_CONTEXT = 20
"""Events before, and after, each result."""
MAX_PREDECESSORS = 20
_CHUNK = 100
_STEPS = 20
"""Steps by which the index may be behind and be brought up to date by a search."""

_OPEN = (Standing.JOINED, Standing.LEFT)


class ContextWanted(NamedTuple):
    """How much of what happened around a result to show."""

    before: int = 5
    after: int = 5
    profiles: bool = False


@dataclass(frozen=True, slots=True)
class SearchWanted:
    """What is asked for. `kinds`: see `homeserver.core.texts.KINDS`."""

    term: str
    kinds: frozenset[str]
    filter: RoomEventFilter = NO_ROOM_EVENT_FILTER
    recent: bool = False
    context: ContextWanted | None = None
    include_state: bool = False
    group_by: tuple[str, ...] = ()
    token: SearchToken | None = None


class Found(NamedTuple):
    """A result."""

    hit: Hit
    room: RoomAccess
    seen: Seen


class Search:
    """Finds events by their words."""

    def __init__(
        self, db: Database, states: StateStore, texts: SearchableTexts, clock: IReactorTime
    ) -> None:
        self._db = db
        self._states = states
        self._texts = texts
        self._clock = clock

    async def search(self, requester: Requester, wanted: SearchWanted) -> JsonObject:
        """The results in the category `room_events`."""
        await self._texts.catch_up(_STEPS)
        now_ms = int(self._clock.seconds() * 1000)
        return await self._db.read(
            lambda txn: _Reading(txn, self._states, requester, wanted, now_ms).answer()
        )


class _Reading:
    """One search, in one transaction."""

    def __init__(
        self,
        txn: Transaction,
        states: StateStore,
        requester: Requester,
        wanted: SearchWanted,
        now_ms: int,
    ) -> None:
        self._txn = txn
        self._states = states
        self._requester = requester
        self._wanted = wanted
        self._now_ms = now_ms
        self._query = words.query(wanted.term)
        # The rooms are chosen once, and others may come with them.
        self._filter = replace(wanted.filter, rooms=None, not_rooms=frozenset())
        self._rooms: dict[int, RoomAccess | None] = {}
        self._ignored = account_data.ignored_users(txn, requester.user_id)

    def answer(self) -> JsonObject:
        wanted = self._wanted
        limit = max(wanted.filter.limit_within(DEFAULT_LIMIT, MAX_LIMIT), 1)
        page: list[Found] = []
        more = 0
        edge: Hit | None = None
        for found in self._scan(self._room_numbers()):
            if isinstance(found, Hit):
                edge = found
            elif len(page) < limit:
                page.append(found)
            else:
                more += 1
        if more or (edge is not None and len(page) == limit):
            edge = page[-1].hit
        before = wanted.token.counted if wanted.token is not None else 0
        answer: JsonObject = {
            "count": before + len(page) + more,
            "highlights": list(self._query.highlights),
            "results": self._results(page),
        }
        token = None
        if edge is not None:
            token = SearchToken(wanted.recent, edge, before + len(page))
            answer["next_batch"] = str(self._within_group(token))
        if wanted.group_by:
            answer["groups"] = self._groups(page, token)
        if wanted.include_state:
            answer["state"] = self._state(page)
        return answer

    def _within_group(self, token: SearchToken) -> SearchToken:
        given = self._wanted.token
        return token if given is None else token._replace(group=given.group)

    def _room_numbers(self) -> set[int]:
        """Rooms to search in."""
        mine = {
            row.room_nid
            for row in memberships.of_user(
                self._txn, self._requester.user_id, ("join", "leave", "ban")
            )
            if not row.forgotten
        }
        found = rooms.get_many(self._txn, mine)
        wanted = self._wanted.filter
        names = {room.room_id: nid for nid, room in found.items()}
        chosen = set(names)
        if wanted.rooms is not None:
            chosen &= self._with_predecessors(wanted.rooms, names)
        chosen -= wanted.not_rooms
        return {names[name] for name in chosen}

    def _with_predecessors(self, chosen: frozenset[str], names: Mapping[str, int]) -> set[str]:
        """The rooms with those that they replaced, as far as the reader was there."""
        every, new = set(chosen), set(chosen)
        for _ in range(MAX_PREDECESSORS):
            new = {
                name
                for room_id in new & names.keys()
                for name in self._predecessor(names[room_id])
                if name not in every
            }
            if not new:
                break
            every |= new
        return every

    def _predecessor(self, room_nid: int) -> list[str]:
        room = self._room(room_nid)
        if room is None:
            return []
        key: StateKey = ("m.room.create", "")
        row = state.current(self._txn, room_nid, [key]).get(key)
        named = room.view.event(row).content.get("predecessor") if row is not None else None
        old = named.get("room_id") if isinstance(named, dict) else None
        return [old] if isinstance(old, str) else []

    def _room(self, room_nid: int) -> RoomAccess | None:
        """A room, if the reader is or was in it."""
        if room_nid not in self._rooms:
            row = rooms.get_many(self._txn, [room_nid]).get(room_nid)
            found = (
                access.look(self._txn, self._states, row.room_id, self._requester)
                if row is not None
                else None
            )
            is_open = found is not None and found.standing in _OPEN
            self._rooms[room_nid] = found if is_open else None
        return self._rooms[room_nid]

    def _scan(self, room_nids: set[int]) -> Iterator[Found | Hit]:
        """Results in order; in the end the last match, if there are more than are looked at."""
        scope = Scope(room_nids, self._wanted.kinds, self._in_sql())
        behind = self._wanted.token.behind if self._wanted.token is not None else None
        for _ in range(MAX_LOOKED_AT // _CHUNK):
            matches = message_words.search(
                self._txn,
                self._query,
                scope,
                recent=self._wanted.recent,
                behind=behind,
                limit=_CHUNK,
            )
            yield from filter(self._in_group, self._shown(matches))
            if len(matches) < _CHUNK:
                return
            behind = matches[-1][0]
        if behind is not None:
            yield behind

    def _in_group(self, found: Found) -> bool:
        """Whether a result is of the group that the token is for."""
        token = self._wanted.token
        if token is None or token.group is None:
            return True
        key, value = token.group
        return value == (found.room.room.room_id if key == "room_id" else found.seen.row.sender)

    def _in_sql(self) -> Wanted:
        """What the database can decide of the filter."""
        wanted = self._filter
        types = wanted.types
        return Wanted(
            types.exact if types is not None and not types.wildcards else None,
            wanted.senders,
            wanted.contains_url,
        )

    def _shown(self, matches: Sequence[tuple[Hit, events.EventRow]]) -> Iterator[Found]:
        """Those of the matches that are results for the reader."""
        by_room: dict[int, list[events.EventRow]] = {}
        for _, row in matches:
            by_room.setdefault(row.room_nid, []).append(row)
        visible: dict[int, tuple[RoomAccess, Seen]] = {}
        for room_nid, rows in by_room.items():
            room = self._room(room_nid)
            if room is not None:
                for seen in self._kept(room.view, room.visible(rows)):
                    visible[seen.row.event_nid] = (room, seen)
        for hit, row in matches:
            if row.event_nid in visible:
                yield Found(hit, *visible[row.event_nid])

    def _kept(self, view: RoomView, seen: Sequence[Seen]) -> list[Seen]:
        wanted = self._filter
        kept = []
        for item in seen:
            row = item.row
            if row.redacted_by is not None or row.sender in self._ignored:
                continue
            text = text_of(row.type, row.state_key, item.event.content)
            if text is None or not _confirmed(self._query, text[1]):
                continue
            if wanted.matches_everything or wanted.matches_event(
                row.type,
                row.sender,
                view.room.room_id,
                contains_url=bool(row.contains_url),
                rel_type=row.rel_type,
            ):
                kept.append(item)
        if wanted.needs_relations:
            pairs = timeline.relation_pairs(self._txn, [item.row.event_id for item in kept])
            kept = [i for i in kept if wanted.matches_relations(pairs.get(i.row.event_id, ()))]
        return kept

    def _results(self, page: Sequence[Found]) -> list[JsonObject]:
        shown = self._rendered(page)
        results = []
        for found in page:
            result: JsonObject = {
                "rank": found.hit.rank,
                "result": shown[found.seen.row.event_id],
            }
            if self._wanted.context is not None:
                result["context"] = self._context(found, self._wanted.context)
            results.append(result)
        return results

    def _rendered(self, page: Sequence[Found]) -> dict[str, JsonObject]:
        """Client form of the results, by event ID."""
        by_room: dict[int, list[Found]] = {}
        for found in page:
            by_room.setdefault(found.room.room.room_nid, []).append(found)
        shown: dict[str, JsonObject] = {}
        for group in by_room.values():
            for event in self._render(group[0].room, [found.seen for found in group]):
                shown[event["event_id"]] = event
        return shown

    def _render(self, room: RoomAccess, seen: Sequence[Seen]) -> list[JsonObject]:
        relations = aggregations.bundle(room.view, seen, self._now_ms, ignored=self._ignored)
        return room.view.render(seen, self._now_ms, relations=relations)

    def _context(self, found: Found, wanted: ContextWanted) -> JsonObject:
        pages = {
            backwards: read_page(
                found.room,
                beside(found.room, found.seen, backwards),
                backwards=backwards,
                limit=min(count, MAX_CONTEXT),
                wanted=NO_ROOM_EVENT_FILTER,
                ignored=self._ignored,
            )
            if count
            else Page([], None)
            for backwards, count in ((True, wanted.before), (False, wanted.after))
        }
        before, after = pages[True].seen, pages[False].seen
        shown = self._render(found.room, [*before, *after])
        context: JsonObject = {
            "start": place_token(end_of(pages[True], found.seen, backwards=True)),
            "end": place_token(end_of(pages[False], found.seen, backwards=False)),
            "events_before": shown[: len(before)],
            "events_after": shown[len(before) :],
        }
        if wanted.profiles:
            senders = {item.row.sender for item in (found.seen, *before, *after)}
            context["profile_info"] = _profiles(found, senders)
        return context

    def _groups(self, page: Sequence[Found], token: SearchToken | None) -> JsonObject:
        groups: JsonObject = {}
        for key in self._wanted.group_by:
            values: dict[str, JsonObject] = {}
            for found in page:
                row = found.seen.row
                value = found.room.room.room_id if key == "room_id" else row.sender
                group = values.setdefault(value, {"order": len(values) + 1, "results": []})
                group["results"].append(row.event_id)
            if token is not None:
                for value, group in values.items():
                    group["next_batch"] = str(token._replace(group=(key, value)))
            groups[key] = values
        return groups

    def _state(self, page: Sequence[Found]) -> JsonObject:
        shown: JsonObject = {}
        for found in page:
            room = found.room
            root = room.state_root() or room.room.state_root
            if room.room.room_id in shown or root is None:
                continue
            rows = room.view.state_at(root)
            shown[room.room.room_id] = room.view.render_state(
                [rows[key] for key in sorted(rows)], self._now_ms
            )
        return shown


def _confirmed(query: Query, text: str) -> bool:
    # Only of pairs of characters it is not certain that they stand side by side.
    return not query.phrases or query.in_text(text)


def _profiles(found: Found, senders: set[str]) -> JsonObject:
    """Names and avatars that users had at the time of a result."""
    root = found.seen.row.state_after
    if root is None:
        return {}
    view = found.room.view
    keys: set[StateKey] = {("m.room.member", sender) for sender in senders}
    profiles: JsonObject = {}
    for (_, user_id), row in view.state_at(root, keys).items():
        content = view.event(row).content
        profile = {key: content.get(key) for key in ("displayname", "avatar_url")}
        profiles[user_id] = {
            key: value
            for key, value in profile.items()
            if isinstance(value, str) and (key == "displayname" or value.startswith("mxc://"))
        }
    return profiles
