"""What happened around an event (client-server API, `GET /rooms/{roomId}/context/{eventId}`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from twisted.internet.interfaces import IReactorTime

from homeserver.core.filters import RoomEventFilter
from homeserver.core.types import JsonObject, StateKey
from homeserver.rooms import access, aggregations
from homeserver.rooms.access import RoomAccess
from homeserver.rooms.timeline import (
    MAX_LIMIT,
    GapFiller,
    Page,
    holes_in,
    place_token,
    read_page,
)
from homeserver.rooms.view import Seen
from homeserver.web.request import Requester
from storage import account_data, timeline
from storage.database import Database
from storage.events import EventRow
from storage.gaps import Gap
from storage.state import StateStore
from storage.timeline import Place, Span
from storage.transaction import Transaction


class EventContext:
    """Reads the surroundings of events.

    `filler` gets what is missing from other servers, once there is one.
    """

    def __init__(self, db: Database, states: StateStore, clock: IReactorTime) -> None:
        self._db = db
        self._states = states
        self._clock = clock
        self.filler: GapFiller | None = None

    async def around(
        self,
        requester: Requester,
        room_id: str,
        event_id: str,
        *,
        limit: int,
        wanted: RoomEventFilter,
    ) -> JsonObject:
        """The event, up to `limit` events before and after it together, the state at the last of
        them, and tokens to page on with.

        Raises:
            MatrixError: 404 `M_NOT_FOUND` if the requester may not see the event.
        """
        now_ms = int(self._clock.seconds() * 1000)

        def read(txn: Transaction) -> tuple[JsonObject, list[Gap]]:
            room, seen = access.find_event(txn, self._states, room_id, event_id, requester)
            ignored = account_data.ignored_users(txn, requester.user_id)
            around = min(limit, MAX_LIMIT)
            counts = {True: around // 2, False: around - around // 2}
            pages = {
                backwards: read_page(
                    room,
                    beside(room, seen, backwards),
                    backwards=backwards,
                    limit=count,
                    wanted=wanted,
                    ignored=ignored,
                )
                if count
                else Page([], None)
                for backwards, count in counts.items()
            }
            before, after = pages[True].seen, pages[False].seen
            everything = [seen, *before, *after]
            view = room.view
            relations = aggregations.bundle(view, everything, now_ms, ignored=ignored)
            shown = view.render(everything, now_ms, relations=relations)
            answer = {
                "start": place_token(end_of(pages[True], seen, backwards=True)),
                "end": place_token(end_of(pages[False], seen, backwards=False)),
                "event": shown[0],
                "events_before": shown[1 : len(before) + 1],
                "events_after": shown[len(before) + 1 :],
                "state": _state(room, everything, after[-1] if after else seen, wanted, now_ms),
            }
            return answer, _holes(room, seen, pages, counts)

        answer, holes = await self._db.read(read)
        if holes and self.filler is not None and await self.filler.fill(room_id, holes):
            answer, _ = await self._db.read(read)
        return answer


def beside(room: RoomAccess, seen: Seen, backwards: bool) -> Span:
    if backwards:
        return Span(upto=timeline.before(seen.row), until=room.until)
    return Span(above=timeline.behind(seen.row), until=room.until)


def _holes(
    room: RoomAccess, seen: Seen, pages: Mapping[bool, Page], counts: Mapping[bool, int]
) -> list[Gap]:
    """What is missing on the pages (by whether they go backwards) that were asked for."""
    return [
        hole
        for backwards, page in pages.items()
        if counts[backwards]
        for hole in holes_in(room, beside(room, seen, backwards), page, backwards=backwards)
    ]


def end_of(page: Page, seen: Seen, *, backwards: bool) -> Place:
    """Where to page on. There is always a place: more may come later, or be fetched."""
    if page.rest is not None:
        return page.rest
    row = page.seen[-1].row if page.seen else seen.row
    return timeline.before(row) if backwards else timeline.behind(row)


def _state(
    room: RoomAccess, everything: list[Seen], last: Seen, wanted: RoomEventFilter, now_ms: int
) -> list[JsonObject]:
    root = last.row.state_after
    if root is None:
        return []
    lazy = wanted.lazy_load_members
    senders = {item.row.sender for item in everything}

    def choose(key: StateKey) -> bool:
        needless = lazy and key[0] == "m.room.member" and key[1] not in senders
        return not needless and wanted.matches_type(key[0])

    rows: Iterable[EventRow] = room.view.state_at(root, choose=choose).values()
    if not _state_is_open(room, last):
        rows = [item.row for item in room.visible(list(rows))]
    return room.view.render_state([r for r in rows if wanted.matches_sender(r.sender)], now_ms)


def _state_is_open(room: RoomAccess, last: Seen) -> bool:
    """Whether the reader, who may see an event, may see the whole state there.

    They see the end of an invitation or a knock though they are shown nothing else of the room.
    """
    view = room.view
    own = last.row.type == "m.room.member" and last.row.state_key == view.reader_id
    return room.may_see_state and (view.was_joined(last.row) or not own)
