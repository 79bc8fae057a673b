"""The threads of a room (client-server API, "Querying threads in a room")."""

from __future__ import annotations

from dataclasses import replace

from twisted.internet.interfaces import IReactorTime

from homeserver.core.tokens import PaginationToken
from homeserver.core.types import JsonObject
from homeserver.rooms import access, aggregations
from homeserver.rooms.timeline import place_token
from homeserver.rooms.view import Seen
from homeserver.web.request import Requester
from storage import account_data, relations
from storage.database import Database
from storage.state import StateStore
from storage.timeline import Place
from storage.transaction import Transaction

DEFAULT_LIMIT = 20
MAX_LIMIT = 100
_PAGES = 5
"""Pages of threads that are looked at for some that the reader may see."""


class Threads:
    """Lists the threads of rooms."""

    def __init__(self, db: Database, states: StateStore, clock: IReactorTime) -> None:
        self._db = db
        self._states = states
        self._clock = clock

    async def page(
        self,
        requester: Requester,
        room_id: str,
        *,
        participated: bool,
        start: PaginationToken | None,
        limit: int,
    ) -> JsonObject:
        """The roots of threads, those with the newest activity first: `chunk`, perhaps
        `next_batch`. Roots by users whom the reader ignores are redacted.

        Parameters: `participated`, only threads that the requester began or wrote in.

        Raises:
            MatrixError: 403 `M_FORBIDDEN`.
        """
        now_ms = int(self._clock.seconds() * 1000)
        count = min(limit, MAX_LIMIT)

        def read(txn: Transaction) -> JsonObject:
            room = access.enter(txn, self._states, room_id, requester)
            ignored = account_data.ignored_users(txn, requester.user_id)
            behind = Place(*start) if start is not None else None
            seen: list[Seen] = []
            is_more = True
            for _ in range(_PAGES):
                found = relations.active_threads(
                    txn,
                    room.room.room_nid,
                    behind=behind,
                    until=room.until,
                    participant=requester.user_id if participated else None,
                    ignored=ignored,
                    limit=count - len(seen) + 1,
                )
                is_more = len(found) > count - len(seen)
                found = found[: count - len(seen)]
                seen += room.visible([row for _, row in found])
                if found:
                    behind = found[-1][0]
                if not is_more or len(seen) == count:
                    break
            bundled = aggregations.bundle(room.view, seen, now_ms, ignored=ignored)
            shown = [
                replace(item, event=item.event.redacted()) if item.row.sender in ignored else item
                for item in seen
            ]
            answer: JsonObject = {"chunk": room.view.render(shown, now_ms, relations=bundled)}
            if is_more and behind is not None:
                answer["next_batch"] = place_token(behind)
            return answer

        return await self._db.read(read)
