"""Delayed events (MSC4140): sent when their time is over, unless they are restarted or cancelled.

Calls use them as a heartbeat: a client keeps restarting "I have left", which is sent when the
client is gone. Whether the event may be sent is judged when it is sent. A newer state event does
not cancel a delayed one. Whatever process is there sends what is due.
"""

from __future__ import annotations

import json
import secrets

import structlog
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from homeserver.core import canonical
from homeserver.core.errors import (
    MatrixError,
    bad_json,
    forbidden,
    invalid_param,
    limit_exceeded,
    not_found,
    too_large,
    user_deactivated,
    user_locked,
    user_suspended,
)
from homeserver.core.ids import RoomID, UserID
from homeserver.core.types import JsonObject
from homeserver.rooms.send import MAX_TRANSACTION_ID, Sending
from homeserver.web.request import Requester
from storage import delayed_events, users
from storage.bus import Unsubscribe
from storage.database import Database
from storage.delayed_events import DelayedRow
from storage.feed import Feed
from storage.transaction import Transaction

MAX_CONTENT_BYTES = 65_536
MAX_TYPE_BYTES = 255
CLAIM_MS = 60_000
"""For so long an event is left to the process that sends it."""
AT_ONCE = 20
LONGEST_SLEEP_S = 10.0
"""Hints from other processes may be lost."""
BUSY_SLEEP_S = 1.0
"""While another process sends what is due, or died doing so."""
REMEMBERED_MS = 7 * 24 * 60 * 60 * 1000
"""For so long it is known what became of an event."""
FORGETTING_MS = 10 * 60 * 1000
MAX_LISTED = 500

_log = structlog.get_logger(__name__)


class DelayedEvents:
    """Schedules events and sends them when they are due.

    `max_delay_ms`: the longest delay; `max_per_user`: events of one user that wait, 0 for none.
    """

    def __init__(
        self,
        db: Database,
        feed: Feed,
        clock: IReactorTime,
        sending: Sending,
        *,
        max_delay_ms: int,
        max_per_user: int,
    ) -> None:
        self._db = db
        self._feed = feed
        self._clock = clock
        self._sending = sending
        self.max_delay_ms = max_delay_ms
        self.max_per_user = max_per_user
        self._timer: IDelayedCall | None = None
        self._working: Deferred[None] | None = None
        self._again = False
        self._stopped = True
        self._forgot_ms = 0
        self._unsubscribe: Unsubscribe | None = None

    # Scheduling

    async def schedule(
        self,
        requester: Requester,
        room_id: RoomID,
        event_type: str,
        content: JsonObject,
        delay_ms: int,
        *,
        state_key: str | None = None,
        txn_id: str = "",
        sticky_ms: int | None = None,
    ) -> str:
        """Have an event sent after a delay; the ID by which it is restarted, sent or cancelled.

        `sticky_ms`: for how many milliseconds it is sticky then (MSC4354). The same `txn_id` of a
        device schedules once. Raises MatrixError: 400 M_UNKNOWN with M_MAX_DELAY_EXCEEDED, 429
        M_LIMIT_EXCEEDED if too many wait, 403 M_FORBIDDEN if the server sends none, 400 and 413
        for what can be no event.
        """
        if not self.max_per_user:
            raise forbidden("This server sends no delayed events.")
        if delay_ms > self.max_delay_ms:
            raise MatrixError(
                400,
                "M_UNKNOWN",
                f"The delay is longer than {self.max_delay_ms} ms.",
                **{
                    "org.matrix.msc4140.errcode": "M_MAX_DELAY_EXCEEDED",
                    "org.matrix.msc4140.max_delay": self.max_delay_ms,
                },
            )
        if len(txn_id.encode()) > MAX_TRANSACTION_ID:
            raise invalid_param("The transaction ID is longer than 255 bytes.")
        for name in (event_type, state_key or ""):
            if len(name.encode()) > MAX_TYPE_BYTES:
                raise too_large("Types and state keys have at most 255 bytes.")
            if "\x00" in name:
                raise bad_json("Types and state keys hold no NUL.")
        row = DelayedRow(
            secrets.token_urlsafe(18),
            requester.user_id,
            requester.device_id or "",
            f"{room_id}/{event_type}",
            txn_id,
            room_id,
            event_type,
            state_key,
            _encode(content),
            delay_ms,
            self._now(),
            sticky_ms=sticky_ms,
        )
        return await self._db.write(self._schedule, row)

    def _schedule(self, txn: Transaction, row: DelayedRow) -> str:
        users.lock_user(txn, row.user_id)
        known = delayed_events.same_transaction(txn, row)
        if known is not None:
            return known
        count, first = delayed_events.waiting(txn, row.user_id)
        if count >= self.max_per_user:
            raise limit_exceeded(max(1_000, first - row.running_since))
        return delayed_events.add(txn, row)

    async def restart(self, delay_id: str) -> None:
        """Begin the delay anew. Raises MatrixError 404 M_NOT_FOUND if it does not wait."""
        if not await self._db.write(delayed_events.restart, delay_id, self._now()):
            raise _unknown()

    async def cancel(self, delay_id: str) -> None:
        """Do not send it. Raises MatrixError 404 M_NOT_FOUND if it does not wait."""
        await self._db.write(self._cancel, delay_id)

    def _cancel(self, txn: Transaction, delay_id: str) -> None:
        now_ms = self._now()
        if delayed_events.claim(txn, delay_id, now_ms, now_ms) is not None:
            delayed_events.finalise(txn, delay_id, now_ms, None, None)
            return
        row = delayed_events.get(txn, delay_id)
        if row is None or row.finalised_ts is None or row.event_id or row.error:
            raise _unknown()

    async def send(self, delay_id: str) -> None:
        """Send it now.

        Raises MatrixError: 404 M_NOT_FOUND if it does not wait, and what sending it raises.
        """
        now_ms = self._now()
        row = await self._db.write(delayed_events.claim, delay_id, now_ms, now_ms + CLAIM_MS)
        if row is not None:
            error = await self._send(row)
            if error is not None:
                raise error
            return
        row = await self._db.read(delayed_events.get, delay_id)
        being_sent = row is not None and row.finalised_ts is None
        if row is None or not (being_sent or row.event_id):
            raise _unknown()

    async def of_user(self, user_id: str, *, finalised: bool) -> list[DelayedRow]:
        """Events of a user that wait, or (`finalised`) what became of others."""
        return await self._db.read(
            delayed_events.of_user, user_id, finalised=finalised, limit=MAX_LISTED
        )

    async def get(self, user_id: str, delay_id: str) -> DelayedRow:
        """One event of a user. Raises MatrixError 404 M_NOT_FOUND."""
        row = await self._db.read(delayed_events.get, delay_id)
        if row is None or row.user_id != user_id:
            raise _unknown()
        return row

    # Sending

    def start(self) -> None:
        """Send from now on what is due."""
        self._stopped = False
        self._unsubscribe = self._feed.subscribe(delayed_events.CHANNEL, lambda pos: self._wake())
        self._wake()

    async def stop(self) -> None:
        """Send no more; what is being sent is waited for."""
        self._stopped = True
        if self._unsubscribe is not None:
            self._unsubscribe()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._working is not None:
            done: Deferred[None] = Deferred()
            self._working.addBoth(lambda result: done.callback(None))
            await done

    def _wake(self) -> None:
        if self._stopped:
            return
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._again = True
        if self._working is None:
            self._working = Deferred.fromCoroutine(self._work())
            self._working.addBoth(lambda result: setattr(self, "_working", None))

    async def _work(self) -> None:
        sleep = LONGEST_SLEEP_S
        try:
            while self._again and not self._stopped:
                self._again = False
                sleep = await self._send_due()
        except Exception as error:
            _log.warning("Delayed events could not be sent", reason=str(error))
            sleep = LONGEST_SLEEP_S
        if not self._stopped:
            self._timer = self._clock.callLater(sleep, self._wake)

    async def _send_due(self) -> float:
        """Send what is due; seconds until there may be more."""
        now_ms = self._now()
        if now_ms - self._forgot_ms > FORGETTING_MS:
            self._forgot_ms = now_ms
            await self._db.write(delayed_events.forget_finalised, now_ms - REMEMBERED_MS)
        due = await self._db.read(delayed_events.next_due)
        if due is None:
            return LONGEST_SLEEP_S
        if due > now_ms:
            return min(LONGEST_SLEEP_S, (due - now_ms) / 1000)
        claimed = await self._db.write(delayed_events.claim_due, now_ms, now_ms + CLAIM_MS, AT_ONCE)
        if not claimed:
            return BUSY_SLEEP_S
        for row in claimed:
            if self._stopped:
                break  # the claim runs out
            await self._send(row)
        self._again = True
        return 0.0

    async def _send(self, row: DelayedRow) -> MatrixError | None:
        """Send a claimed event; the error that refused it for good."""
        event_id, refusal = None, None
        try:
            event_id = await self._send_as_user(row)
        except MatrixError as error:
            if error.status >= 500 or error.status == 429:
                _log.warning("A delayed event is sent later", delay=row.delay_id, reason=str(error))
                return error  # again when the claim runs out
            refusal = error
        told = None if refusal is None else json.dumps(refusal.body())
        await self._db.write(delayed_events.finalise, row.delay_id, self._now(), event_id, told)
        return refusal

    async def _send_as_user(self, row: DelayedRow) -> str:
        user = await self._db.read(users.get_user, row.user_id)
        if user is None or user.deactivated:
            raise user_deactivated()
        if user.locked:
            raise user_locked()
        if user.suspended:
            raise user_suspended()
        # Without the device: the ID of the delayed event is the transaction, so that an event
        # which was sent by a process that died before it could note so is not sent again.
        requester = Requester(
            UserID(row.user_id),
            is_guest=user.is_guest,
            is_admin=user.is_admin,
            is_shadow_banned=user.shadow_banned,
        )
        room_id, content = RoomID(row.room_id), json.loads(row.content)
        if row.state_key is not None:
            return await self._sending.send_state(
                requester,
                room_id,
                row.event_type,
                row.state_key,
                content,
                sticky_ms=row.sticky_ms,
            )
        return await self._sending.send_event(
            requester,
            room_id,
            row.event_type,
            content,
            row.delay_id,
            sticky_ms=row.sticky_ms,
        )

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)


def _unknown() -> MatrixError:
    return not_found("There is no such delayed event.")


def _encode(content: JsonObject) -> str:
    try:
        canonical.check(content, strict=False)
        encoded = canonical.encode_plain(content)
    except canonical.CanonicalJSONError as error:
        raise bad_json(str(error)) from None
    if len(encoded) > MAX_CONTENT_BYTES:
        raise too_large("The content of an event has at most 65536 bytes.")
    return encoded.decode()
