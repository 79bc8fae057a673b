"""Joining rooms that this server is not in (Server-Server API, "Joining Rooms").

One join of a room at a time, whichever process it is in: whoever waited finds this server in the
room and joins like anybody. Nothing is stored before the room is adopted in one transaction, so
that a process that dies in the middle leaves nothing behind but its lease, which ends with it.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass

import structlog
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from federation.client.errors import BadAnswer, RemoteError
from federation.client.membership import JoinAnswer, MembershipCalls
from federation.client.pdus import PduChecker
from homeserver import collecting
from homeserver.core import errors
from homeserver.core.errors import MatrixError
from homeserver.core.event import Event
from homeserver.core.room_versions import ROOM_VERSIONS, RoomVersion
from homeserver.core.types import JsonObject
from homeserver.rooms.build import LocalSigner
from homeserver.rooms.completion import Completion
from homeserver.rooms.receive import BadState, KnownState, Receiver
from homeserver.rooms.remote_attempts import Attempts
from homeserver.rooms.remote_event import AUTHORISER, WantedMember, sign_template, with_signatures
from homeserver.rooms.remote_state import JoinState, read_join_state
from homeserver.semaphore import Semaphore
from storage import leases, memberships, rooms
from storage.database import Database
from storage.events import ACCEPTED
from storage.leases import LeaseKeeper
from storage.transaction import Transaction

LEASE_MS = 15_000
WAIT_S = 300
"""How long a join waits for another process's join of the same room."""

PATIENCE_S = 20.0
POLL_S = 0.25
"""How long, and how often looked at, events wait for the end of a join."""

_LEASE = "join:"
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class WantedJoin:
    """A user's wish to join a room.

    Parameters:
        content: of the member event, `membership` included.
        servers: those to ask, the likeliest first.
        is_resident: this server is in the room; another one only has to authorise the join.
    """

    user_id: str
    room_id: str
    content: JsonObject
    servers: Sequence[str]
    is_resident: bool = False


class RemoteJoins:
    """Joins rooms through other servers."""

    def __init__(
        self,
        db: Database,
        calls: MembershipCalls,
        checker: PduChecker,
        receiver: Receiver,
        signer: LocalSigner,
        clock: IReactorTime,
    ) -> None:
        self._db = db
        self._calls = calls
        self._checker = checker
        self._receiver = receiver
        self._signer = signer
        self._clock = clock
        self.completion: Completion | None = None
        """Completes rooms that are entered without their members; None: all are asked for."""
        self._locks: dict[str, tuple[Semaphore, int]] = {}
        self._running: dict[tuple[str, str], Deferred[str | None]] = {}
        self._waiters: dict[tuple[str, str], list[Deferred[str | None]]] = {}

    async def join(self, wanted: WantedJoin) -> str | None:
        """Join a room; the ID of the join event, or None if this server is in the room by now and
        was not before: the join is an ordinary one then.

        A client that goes away does not end it; asked for a second time, it is joined in.

        Raises:
            MatrixError: what the other servers said, where that tells the user something; 404
                `M_NOT_FOUND` without a server to ask; 502 `M_UNKNOWN`.
        """
        key = (wanted.room_id, wanted.user_id)
        waiter: Deferred[str | None] = Deferred()
        self._waiters.setdefault(key, []).append(waiter)
        if key not in self._running:
            running: Deferred[str | None] = Deferred()
            self._running[key] = running
            work = Deferred.fromCoroutine(self._alone(wanted))
            if key in self._running:
                self._running[key] = work
            work.addBoth(lambda result: self._tell(key, result))
        return await waiter

    async def settled(self, room_ids: Collection[str]) -> bool:
        """Wait until no process is entering one of these rooms, but not too long; whether any
        was. Events that are sent into them meanwhile would be lost otherwise."""
        for attempt in range(int(PATIENCE_S / POLL_S)):
            if not await self._db.read(_is_any_joined, room_ids, self._now_ms()):
                return attempt > 0
            await deferLater(self._clock, POLL_S)
        return True

    async def stop(self) -> None:
        """Give up the joins that are under way."""
        ends: list[Deferred[str | None]] = []
        for key, work in list(self._running.items()):
            end: Deferred[str | None] = Deferred()
            end.addErrback(lambda failure: None)
            self._waiters[key].append(end)
            ends.append(end)
            work.cancel()
        for end in ends:
            await end

    def _tell(self, key: tuple[str, str], result: object) -> None:
        self._running.pop(key, None)
        if isinstance(result, Failure) and isinstance(result.value, CancelledError):
            # This server stops.
            result = errors.unavailable()
        for waiter in self._waiters.pop(key, ()):
            if waiter.called:
                continue
            if isinstance(result, MatrixError):
                waiter.errback(result)
            else:
                waiter.callback(result)  # type: ignore[arg-type]  # a Failure calls the errbacks

    async def _alone(self, wanted: WantedJoin) -> str | None:
        async def work() -> str | None:
            keeper = LeaseKeeper(
                self._db, self._clock, self._db.process_token, lambda name: None, LEASE_MS
            )
            try:
                await self._claim(keeper, _LEASE + wanted.room_id)
                resident, joined = await self._db.read(_standing, wanted.room_id, wanted.user_id)
                if joined or resident != wanted.is_resident:
                    return None
                return await self._try_all(wanted)
            finally:
                await keeper.stop()

        return await self._in_turn(wanted.room_id, work)

    async def _in_turn(self, room_id: str, work: Callable[[], Awaitable[str | None]]) -> str | None:
        lock, users = self._locks.get(room_id, (Semaphore(1), 0))
        self._locks[room_id] = (lock, users + 1)
        try:
            await lock.acquire()
            try:
                return await work()
            finally:
                lock.release()
        finally:
            users = self._locks[room_id][1] - 1
            if users:
                self._locks[room_id] = (lock, users)
            else:
                del self._locks[room_id]

    def _now_ms(self) -> int:
        return int(self._clock.seconds() * 1000)

    async def _claim(self, keeper: LeaseKeeper, name: str) -> None:
        for _ in range(WAIT_S):
            if await keeper.claim([name]):
                return
            await deferLater(self._clock, 1.0)
        raise errors.unavailable()

    async def _try_all(self, wanted: WantedJoin) -> str:
        attempts = Attempts()
        for server in wanted.servers:
            try:
                return await self._through(server, wanted)
            except RemoteError as error:
                attempts.failed(error)
                _log.info(
                    "A server did not help to join",
                    room_id=wanted.room_id,
                    user_id=wanted.user_id,
                    reason=str(error),
                )
            if attempts.is_refused:
                break
        raise attempts.error()

    async def _through(self, server: str, wanted: WantedJoin) -> str:
        """Join through one server. Raises RemoteError."""
        template = await self._calls.make_join(
            server, wanted.room_id, wanted.user_id, list(ROOM_VERSIONS)
        )
        version = ROOM_VERSIONS.get(template.room_version)
        if version is None:
            raise BadAnswer(server, f"unknown room version {template.room_version[:50]!r}")
        known = await self._db.read(rooms.get, wanted.room_id)
        # Of a room without a state only an invite told, which may have lied.
        is_sure = known is not None and known.state_root is not None
        if known is not None and is_sure and known.version != version.identifier:
            raise BadAnswer(server, f"the room is of version {known.version}")
        event = sign_template(
            template.event,
            WantedMember(wanted.room_id, wanted.user_id, wanted.content),
            version,
            self._signer,
            server,
            self._now_ms(),
            secrets.token_hex(12),
        )
        answer = await self._calls.send_join(
            server,
            wanted.room_id,
            event.event_id,
            event.pdu,
            omit_members=self.completion is not None and not wanted.is_resident,
        )
        event = await self._countersigned(event, answer, version, server)
        if answer.members_omitted and (self.completion is None or wanted.is_resident):
            raise BadAnswer(server, "members were left out, though nobody asked for that")
        # It may be all of a large room's state.
        with collecting.large_states():
            await self._take_in(event, version, answer, server, is_resident=wanted.is_resident)
        return event.event_id

    async def _take_in(
        self,
        event: Event,
        version: RoomVersion,
        answer: JoinAnswer,
        server: str,
        *,
        is_resident: bool,
    ) -> None:
        found = await read_join_state(self._checker, answer, event, version, server)
        if is_resident:
            await self._add(event, found, server)
        else:
            await self._adopt(event, version, found, answer, server)

    async def _countersigned(
        self, event: Event, answer: JoinAnswer, version: RoomVersion, server: str
    ) -> Event:
        """The join with the signature of the server that authorised it, if it had to."""
        if AUTHORISER not in event.content:
            return event
        pdu = with_signatures(event, answer.event or {}, server)
        [checked] = await self._checker.check([pdu], version, room_id=event.room_id)
        if checked.event is None or checked.event.event_id != event.event_id:
            raise BadAnswer(server, f"the join was not authorised: {checked.error}")
        return checked.event

    async def _adopt(
        self,
        event: Event,
        version: RoomVersion,
        found: JoinState,
        answer: JoinAnswer,
        server: str,
    ) -> None:
        completion = self.completion if answer.members_omitted else None

        def within(txn: Transaction, room_nid: int) -> None:
            if completion is not None:
                completion.enqueue(txn, event.room_id)

        try:
            await self._receiver.adopt(
                event,
                version,
                found.state,
                found.auth_chain,
                servers=answer.servers,
                partial=answer.members_omitted,
                within=within,
            )
        except BadState as problem:
            raise BadAnswer(server, str(problem)) from None
        if completion is not None:
            await completion.begin(event.room_id, server)

    async def _add(self, event: Event, found: JoinState, server: str) -> None:
        """Put a join into a room that this server is in already."""
        room_id = event.room_id
        judged = (await self._receiver.add(room_id, [event]))[event.event_id]
        if judged.missing_prev or judged.missing_auth:
            # The other server is ahead: it said what the state before the join is.
            await self._receiver.add_outliers(room_id, [*found.auth_chain, *found.state])
            state = KnownState({known.key: known.event_id for known in found.state})
            judged = (await self._receiver.add(room_id, [event], states={event.event_id: state}))[
                event.event_id
            ]
        if judged.status != ACCEPTED:
            raise BadAnswer(server, f"the join is not accepted: {judged.reason}")


def _is_any_joined(txn: Transaction, room_ids: Collection[str], now_ms: int) -> bool:
    names = [_LEASE + room_id for room_id in room_ids]
    return bool(leases.held(txn, names, now_ms))


def _standing(txn: Transaction, room_id: str, user_id: str) -> tuple[bool, bool]:
    """Whether this server is in the room, and whether the user is."""
    room_nid = rooms.nid(txn, room_id)
    if room_nid is None:
        return False, False
    joined = memberships.local_joined(txn, room_nid)
    return bool(joined), user_id in joined
