"""Paging through the history of a room (client-server API, `GET /rooms/{roomId}/messages`).

Pages are in the order of the graph: by depth, then by position. A token is a place in that order,
or a token of `/sync`, which stands for what this server knew at that time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple, Protocol

from twisted.internet.interfaces import IReactorTime

from homeserver.core.filters import RoomEventFilter
from homeserver.core.tokens import PaginationToken, SyncToken
from homeserver.core.types import JsonObject, StateKey
from homeserver.rooms import access, aggregations
from homeserver.rooms.access import RoomAccess
from homeserver.rooms.shown_state import listed
from homeserver.rooms.view import RoomView, Seen
from homeserver.web.request import Requester
from storage import account_data, gaps, timeline
from storage.database import Database
from storage.events import EventRow
from storage.gaps import Gap
from storage.state import StateStore
from storage.timeline import Place, Span, Wanted
from storage.transaction import Transaction


class GapFiller(Protocol):
    """Gets history from other servers; `homeserver.rooms.backfill.Backfill` does."""

    async def fill(self, room_id: str, holes: Sequence[Gap], *, wait_s: float = ...) -> bool:
        """Get what lies before these gaps; whether there is more to read now. Never raises."""
        ...


RoomToken = PaginationToken | SyncToken

DEFAULT_LIMIT = 10
MAX_LIMIT = 500
MAX_LOOKED_AT = 1000
"""Events that are read for one page; the next page goes on where this one stopped."""
WINDOW = 10_000
"""Events among which the database looks for those that a filter wants, for one page."""


MAX_FILLS = 4
"""How often other servers are asked for one page."""
FILL_S = 20.0
"""Seconds that a page waits for other servers altogether."""
_MAX_GAPS = 20


class Page(NamedTuple):
    """Events in the direction of paging, and the place to go on from; None: there is no more."""

    seen: list[Seen]
    rest: Place | None


def span_between(
    start: RoomToken | None, end: RoomToken | None, *, backwards: bool, until: int | None = None
) -> Span:
    """The part of the history between two tokens; `until`, the last position to show."""
    older, newer = (end, start) if backwards else (start, end)
    span = Span(until=until)
    if isinstance(older, SyncToken):
        span = span._replace(after=older.durable)
    elif older is not None:
        span = span._replace(above=Place(*older))
    if isinstance(newer, SyncToken):
        span = span._replace(until=_least(until, newer.durable))
    elif newer is not None:
        span = span._replace(upto=Place(*newer))
    return span


def _least(one: int | None, other: int) -> int:
    return other if one is None else min(one, other)


Fetch = Callable[[Span, int], list[EventRow]]
"""Reads up to so many events from the beginning of a span, in the direction of paging."""


def collect(
    room: RoomAccess,
    span: Span,
    *,
    backwards: bool,
    limit: int,
    fetch: Fetch,
    keep: Callable[[list[Seen]], list[Seen]],
) -> Page:
    """Up to `limit` (at least 1) events that the reader may see and that `keep` keeps."""
    found: list[Seen] = []
    looked_at = 0
    while True:
        wanted = limit - len(found) + 1
        rows = fetch(span, wanted)
        for item in keep(room.visible(rows)):
            if len(found) == limit:
                # So there is more.
                return Page(found, _next_place(found[-1].row, backwards))
            found.append(item)
        if len(rows) < wanted:
            return Page(found, None)
        place = _next_place(rows[-1], backwards)
        looked_at += len(rows)
        if looked_at >= MAX_LOOKED_AT:
            return Page(found, place)
        span = _from(span, place, backwards)


def holes_in(room: RoomAccess, span: Span, page: Page, *, backwards: bool) -> list[Gap]:
    """The gaps of the history that lie within a page, or at the end of one that is not full."""
    if span.after is not None or not room.room.remote_servers:
        # What is fetched for a gap was not known after a position in the log.
        return []
    above = span.above.depth if span.above is not None else 0
    upto = span.upto.depth if span.upto is not None else None
    if page.rest is not None and backwards:
        above = page.rest.depth + 1
    elif page.rest is not None:
        upto = page.rest.depth
    txn, room_nid = room.view.txn, room.room.room_nid
    # A token of /sync may stand right before an event that a gap lies before.
    until = span.until + 1 if span.until is not None else None
    return gaps.within(txn, room_nid, above, upto, until, _MAX_GAPS)


def read_page(
    room: RoomAccess,
    span: Span,
    *,
    backwards: bool,
    limit: int,
    wanted: RoomEventFilter,
    ignored: Collection[str],
) -> Page:
    """Events of a span for one reader: those that the filter wants."""
    view = room.view
    only = _in_sql(wanted)
    cut = None
    if not only.everything:
        edge = timeline.nth(view.txn, room.room.room_nid, span, backwards=backwards, n=WINDOW)
        if edge is not None:
            cut = edge._replace(pos=edge.pos - 1) if backwards else edge
    part = span if cut is None else _up_to(span, cut, backwards)

    def fetch(rest: Span, count: int) -> list[EventRow]:
        return timeline.page(
            view.txn, room.room.room_nid, rest, backwards=backwards, limit=count, wanted=only
        )

    page = collect(
        room,
        part,
        backwards=backwards,
        limit=limit,
        fetch=fetch,
        keep=lambda seen: _kept(view, seen, wanted, ignored),
    )
    return page if page.rest is not None or cut is None else Page(page.seen, cut)


def _next_place(row: EventRow, backwards: bool) -> Place:
    return timeline.before(row) if backwards else timeline.behind(row)


def _from(span: Span, place: Place, backwards: bool) -> Span:
    return span._replace(upto=place) if backwards else span._replace(above=place)


def _up_to(span: Span, place: Place, backwards: bool) -> Span:
    return span._replace(above=place) if backwards else span._replace(upto=place)


def _in_sql(wanted: RoomEventFilter) -> Wanted:
    """What the database can decide of a filter."""
    types = wanted.types
    return Wanted(
        types.exact if types is not None and not types.wildcards else None,
        wanted.senders,
        wanted.contains_url,
    )


def _kept(
    view: RoomView, seen: list[Seen], wanted: RoomEventFilter, ignored: Collection[str]
) -> list[Seen]:
    if ignored:
        seen = [i for i in seen if i.row.state_key is not None or i.row.sender not in ignored]
    if wanted.matches_everything:
        return seen
    kept = [
        item
        for item in seen
        if wanted.matches_event(
            item.row.type,
            item.row.sender,
            view.room.room_id,
            contains_url=bool(item.row.contains_url),
            rel_type=item.row.rel_type,
        )
    ]
    if wanted.needs_relations:
        pairs = timeline.relation_pairs(view.txn, [item.row.event_id for item in kept])
        kept = [i for i in kept if wanted.matches_relations(pairs.get(i.row.event_id, ()))]
    return kept


def lazy_members(
    view: RoomView, root: bytes | None, seen: Collection[Seen], now_ms: int
) -> list[JsonObject]:
    """Client form of the member events, in one state, of the senders of events."""
    if root is None:
        return []
    keys: set[StateKey] = {("m.room.member", item.row.sender) for item in seen}
    rows = view.state_at(root, keys)
    return view.render_state([rows[key] for key in sorted(rows)], now_ms)


def place_token(place: Place) -> str:
    """The token of a place."""
    return str(PaginationToken(*place))


class Timeline:
    """Pages of rooms' histories.

    `filler` gets what is missing from other servers, once there is one.
    """

    def __init__(self, db: Database, states: StateStore, clock: IReactorTime) -> None:
        self._db = db
        self._states = states
        self._clock = clock
        self.filler: GapFiller | None = None

    async def messages(
        self,
        requester: Requester,
        room_id: str,
        *,
        backwards: bool,
        start: RoomToken | None = None,
        end: RoomToken | None = None,
        limit: int = DEFAULT_LIMIT,
        wanted: RoomEventFilter,
    ) -> JsonObject:
        """A page of a room's history: `start`, `chunk`, perhaps `end` and `state`.

        Parameters: `start` and `end`, the tokens `from` and `to`; None is the end of the history
        in that direction. `limit` above `MAX_LIMIT` is that. What is missing on the page is got
        from other servers, within `FILL_S`.

        Raises:
            MatrixError: 403 `M_FORBIDDEN`.
        """

        def read(txn: Transaction, moved: bool) -> tuple[JsonObject, list[Gap]]:
            room = access.enter(txn, self._states, room_id, requester)
            span = span_between(start, end, backwards=backwards, until=room.until)
            begin = start if start is not None else _beginning(room, span, backwards)
            if limit == 0:
                return {"start": str(begin), "chunk": [], "end": str(begin)}, []
            return self._page(room, span, str(begin), backwards, limit, wanted, moved)

        answer, holes = await self._db.read(read, False)
        deadline = self._clock.seconds() + FILL_S
        for _ in range(MAX_FILLS):
            left = deadline - self._clock.seconds()
            if not holes or self.filler is None or left <= 0:
                break
            if not await self.filler.fill(room_id, holes, wait_s=left):
                break
            answer, holes = await self._db.read(read, True)
        return answer

    def _page(
        self,
        room: RoomAccess,
        span: Span,
        begin: str,
        backwards: bool,
        limit: int,
        wanted: RoomEventFilter,
        moved: bool,
    ) -> tuple[JsonObject, list[Gap]]:
        """The page as it is, and what is missing on it; `moved`, whether some was got already."""
        view = room.view
        now_ms = int(self._clock.seconds() * 1000)
        ignored = account_data.ignored_users(view.txn, view.reader_id)
        page = read_page(
            room,
            span,
            backwards=backwards,
            limit=min(limit, MAX_LIMIT),
            wanted=wanted,
            ignored=ignored,
        )
        relations = aggregations.bundle(view, page.seen, now_ms, ignored=ignored)
        answer: JsonObject = {
            "start": begin,
            "chunk": listed(view.render_text(page.seen, now_ms, relations=relations)),
        }
        holes = holes_in(room, span, page, backwards=backwards)
        rest = page.rest
        if rest is None and holes and backwards and (page.seen or moved):
            rest = _oldest(room, span)
        if rest is not None:
            answer["end"] = place_token(rest)
        if wanted.lazy_load_members and page.seen:
            root = page.seen[0].row.state_after
            answer["state"] = lazy_members(view, root, page.seen, now_ms)
        return answer, holes


def _oldest(room: RoomAccess, span: Span) -> Place | None:
    """Where to go on once there is more before the oldest event of a span."""
    place = timeline.nth(room.view.txn, room.room.room_nid, span, backwards=False, n=1)
    return None if place is None else place._replace(pos=place.pos - 1)


def _beginning(room: RoomAccess, span: Span, backwards: bool) -> PaginationToken:
    place = timeline.nth(room.view.txn, room.room.room_nid, span, backwards=backwards, n=1)
    if place is None:
        return PaginationToken(0, 0)
    return PaginationToken(place.depth, place.pos if backwards else place.pos - 1)
