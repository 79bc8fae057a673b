"""Following threads (MSC4306, MSC4308): what a user wants to be told of.

Clients subscribe for their users when those are mentioned or take part ("automatic"). Who then
stops following is not subscribed again by anything that was said before.
"""

from __future__ import annotations

from homeserver.core.errors import MatrixError, invalid_param, not_found
from homeserver.core.types import JsonObject
from homeserver.rooms import access
from homeserver.web.request import Requester
from storage import thread_subscriptions, users
from storage.clock import position
from storage.database import Database
from storage.state import StateStore
from storage.thread_subscriptions import Subscription
from storage.transaction import Transaction

MAX_SUBSCRIPTIONS = 50_000
"""Of one user."""
MAX_LIMIT = 500


class ThreadSubscriptions:
    """Keeps which threads local users follow."""

    def __init__(self, db: Database, states: StateStore) -> None:
        self._db = db
        self._states = states

    async def get(self, requester: Requester, room_id: str, thread_id: str) -> bool:
        """Whether the requester was subscribed automatically.

        Raises MatrixError 404 M_NOT_FOUND if they do not follow the thread, or may not see it.
        """
        return await self._db.read(self._get, requester, room_id, thread_id)

    def _get(self, txn: Transaction, requester: Requester, room_id: str, thread_id: str) -> bool:
        access.find_event(txn, self._states, room_id, thread_id, requester)
        found = thread_subscriptions.get(txn, requester.user_id, room_id, thread_id)
        if found is None or not found.subscribed:
            raise not_found("You do not follow this thread.")
        return found.automatic

    async def subscribe(
        self, requester: Requester, room_id: str, thread_id: str, automatic: str | None
    ) -> None:
        """Follow a thread: by the user's wish, or (`automatic`) because of that event in it.

        Raises MatrixError: 404 M_NOT_FOUND for what the requester may not see, 400
        IO.ELEMENT.MSC4306.M_NOT_IN_THREAD, 409 IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION
        if they stopped following after that event, 400 M_INVALID_PARAM for too many.
        """
        await self._db.write(self._subscribe, requester, room_id, thread_id, automatic)

    def _subscribe(
        self,
        txn: Transaction,
        requester: Requester,
        room_id: str,
        thread_id: str,
        automatic: str | None,
    ) -> None:
        user_id = requester.user_id
        access.find_event(txn, self._states, room_id, thread_id, requester)
        users.lock_user(txn, user_id)
        found = thread_subscriptions.get(txn, user_id, room_id, thread_id)
        if automatic is not None:
            _, cause = access.find_event(txn, self._states, room_id, automatic, requester)
            if cause.row.thread_root != thread_id and automatic != thread_id:
                raise MatrixError(
                    400, "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD", "The event is not in the thread."
                )
            if found is not None and found.subscribed:
                return  # also what the user wished for stays so
            if found is not None and (cause.row.pos or 0) <= found.pos:
                raise MatrixError(
                    409,
                    "IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION",
                    "You stopped following the thread after this event.",
                )
        elif found is not None and found.subscribed and not found.automatic:
            return
        if found is None and thread_subscriptions.count(txn, user_id) >= MAX_SUBSCRIPTIONS:
            raise invalid_param("You follow too many threads.")
        self._put(txn, user_id, room_id, thread_id, True, automatic is not None)

    async def unsubscribe(self, requester: Requester, room_id: str, thread_id: str) -> None:
        """Stop following a thread. Raises MatrixError 404 M_NOT_FOUND."""
        await self._db.write(self._unsubscribe, requester, room_id, thread_id)

    def _unsubscribe(
        self, txn: Transaction, requester: Requester, room_id: str, thread_id: str
    ) -> None:
        access.find_event(txn, self._states, room_id, thread_id, requester)
        users.lock_user(txn, requester.user_id)
        found = thread_subscriptions.get(txn, requester.user_id, room_id, thread_id)
        if found is not None and found.subscribed:
            self._put(txn, requester.user_id, room_id, thread_id, False, False)

    def _put(
        self,
        txn: Transaction,
        user_id: str,
        room_id: str,
        thread_id: str,
        subscribed: bool,
        automatic: bool,
    ) -> None:
        pos = txn.next_pos()
        change = Subscription(room_id, thread_id, pos, subscribed, automatic)
        thread_subscriptions.put(txn, user_id, change)

    async def changes(
        self, user_id: str, after: int, upto: int | None, limit: int
    ) -> tuple[list[Subscription], int | None]:
        """Changes of a user, the newest first, and where to go on to older ones (None: the end).

        Positions: `after` is not part of the answer, `upto` is; None: up to now.
        """
        return await self._db.read(_changes, user_id, after, upto, min(limit, MAX_LIMIT))


def _changes(
    txn: Transaction, user_id: str, after: int, upto: int | None, limit: int
) -> tuple[list[Subscription], int | None]:
    end = position(txn) if upto is None else upto
    found = thread_subscriptions.changes(txn, user_id, after, end, limit)
    return found, found[-1].pos - 1 if len(found) == limit else None


def as_answer(changes: list[Subscription]) -> dict[str, dict[str, JsonObject]]:
    """Changes in the form of the endpoint and of sliding sync's extension."""
    answer: dict[str, dict[str, JsonObject]] = {}
    for each in changes:
        told: JsonObject = {"bump_stamp": each.pos}
        if each.subscribed:
            told["automatic"] = each.automatic
        kind = "subscribed" if each.subscribed else "unsubscribed"
        answer.setdefault(kind, {}).setdefault(each.room_id, {})[each.thread_id] = told
    return answer
