"""Paging through what relates to an event (client-server API, "Relationships API")."""

from __future__ import annotations

from typing import NamedTuple

from twisted.internet.interfaces import IReactorTime

from homeserver.core.types import JsonObject
from homeserver.rooms import access, aggregations
from homeserver.rooms.timeline import (
    MAX_LIMIT,
    RoomToken,
    collect,
    place_token,
    span_between,
)
from homeserver.rooms.view import Seen
from homeserver.web.request import Requester
from storage import account_data, timeline
from storage.database import Database
from storage.events import EventRow
from storage.state import StateStore
from storage.timeline import Span
from storage.transaction import Transaction

MAX_DEPTH = 3
"""Levels of relations that are followed."""


class WantedRelations(NamedTuple):
    """Which children to list: of a relation type and an event type, or all; None is all."""

    rel_type: str | None = None
    event_type: str | None = None
    recurse: bool = False


class RelatedEvents:
    """Lists the children of events."""

    def __init__(self, db: Database, states: StateStore, clock: IReactorTime) -> None:
        self._db = db
        self._states = states
        self._clock = clock

    async def page(
        self,
        requester: Requester,
        room_id: str,
        event_id: str,
        wanted: WantedRelations,
        *,
        backwards: bool = True,
        start: RoomToken | None = None,
        end: RoomToken | None = None,
        limit: int,
    ) -> JsonObject:
        """A page of events: `chunk`, perhaps `next_batch` and `prev_batch`.

        Raises:
            MatrixError: 404 `M_NOT_FOUND` if the requester may not see the event.
        """
        now_ms = int(self._clock.seconds() * 1000)

        def read(txn: Transaction) -> JsonObject:
            room, _ = access.find_event(txn, self._states, room_id, event_id, requester)
            ignored = account_data.ignored_users(txn, requester.user_id)

            def fetch(span: Span, count: int) -> list[EventRow]:
                return timeline.related(
                    txn,
                    room.room.room_nid,
                    event_id,
                    span,
                    levels=MAX_DEPTH if wanted.recurse else 1,
                    rel_type=wanted.rel_type,
                    event_type=wanted.event_type,
                    backwards=backwards,
                    limit=count,
                )

            def keep(seen: list[Seen]) -> list[Seen]:
                return [item for item in seen if item.row.sender not in ignored]

            page = collect(
                room,
                span_between(start, end, backwards=backwards, until=room.until),
                backwards=backwards,
                limit=min(limit, MAX_LIMIT),
                fetch=fetch,
                keep=keep,
            )
            relations = aggregations.bundle(room.view, page.seen, now_ms, ignored=ignored)
            answer: JsonObject = {"chunk": room.view.render(page.seen, now_ms, relations=relations)}
            if page.rest is not None:
                answer["next_batch"] = place_token(page.rest)
            if start is not None:
                answer["prev_batch"] = str(start)
            return answer

        return await self._db.read(read)
