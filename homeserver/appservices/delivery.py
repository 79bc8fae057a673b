"""Tells application services what happened: in order, each transaction until it is taken.

For each service one process at a time, which holds its lease. A transaction is written down before
it is sent for the first time, so that it is the same when it is repeated, also by another process
after a crash. A service that does not answer is tried again after a while, which grows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall

from federation.client.errors import RemoteError
from homeserver.appservices.calls import TIMEOUT_S, AppserviceCalls
from homeserver.appservices.interest import Owned
from homeserver.appservices.transactions import Live, next_part
from homeserver.core import canonical
from homeserver.core.appservices import AppserviceRegistration
from homeserver.ticking import start_ticking
from homeserver.users.presence import PresenceTracker
from storage import appservice_streams, clock, leases
from storage.appservice_streams import StreamRow
from storage.bus import Bus
from storage.database import Database
from storage.ephemeral import EphemeralStore
from storage.leases import LeaseKeeper
from storage.transaction import Transaction

CHANNEL = "appservices"
"""Hints of other processes that there is something new."""
TYPING = "typing"
"""Hints of all processes that somebody types, or no longer: the room's ID and number."""
PRESENCE_EVERY_S = 2.0
MAX_LIVE = 1_000
"""Rooms where people type, and users with another presence, that are told of at a time."""
POLL_S = 5.0
"""Seconds after which a process looks for services that nobody serves, and for lost hints."""
GATHER_S = 0.05
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 300.0
IDLE_STEP = 1_000
"""Positions without anything of interest that are passed over before that is written down."""

_log = structlog.get_logger(__name__)


def lease_name(appservice_id: str) -> str:
    """The lease of whoever tells a service."""
    return f"appservice:{appservice_id}"


class _Line:
    """What is under way for one service in this process."""

    def __init__(self, registration: AppserviceRegistration) -> None:
        self.owned = Owned(registration)
        self.registration = registration
        self.running: Deferred[None] | None = None
        self.again = False
        self.seen = 0
        """The position up to which there is nothing, which need not be written down each time."""
        self.typing: dict[str, int] = {}
        """Rooms in which other people type than before, with their numbers."""
        self.present: set[str] = set()
        """Users whose presence is another than at `present_since`."""
        self.present_since = 0
        self.pause = 0.0
        self.call: IDelayedCall | None = None


class AppserviceDelivery:
    """Serves the services whose leases this process gets, from `start` to `stop`."""

    def __init__(
        self,
        db: Database,
        bus: Bus,
        reactor: Any,
        services: Sequence[AppserviceRegistration],
        calls: AppserviceCalls,
        store: EphemeralStore,
        presence: PresenceTracker,
    ) -> None:
        self._db = db
        self._bus = bus
        self._reactor = reactor
        self._calls = calls
        self._store = store
        self._presence = presence
        self._presence_upto = 0
        self._presence_loop = LoopingCall(self._look_at_presence)
        self._presence_loop.clock = reactor
        self._lines = {
            lease_name(each.appservice_id): _Line(each) for each in services if each.url is not None
        }
        self.caches = [cache for line in self._lines.values() for cache in line.owned.caches]
        self._owner = f"{db.process_token}:appservices"
        self._keeper = LeaseKeeper(db, reactor, self._owner, self._lost)
        self._poll = LoopingCall(self._look_safely)
        self._poll.clock = reactor
        self._looking: Deferred[None] | None = None
        self._gathering: IDelayedCall | None = None
        self._unsubscribe: list[Callable[[], None]] = []
        self._stopped = False

    async def start(self) -> None:
        """Begin: with what was written while no process ran."""
        if not self._lines:
            return
        first_number = int(self._reactor.seconds() * 1000)
        for line in self._lines.values():
            name = line.registration.appservice_id
            await self._db.write(appservice_streams.begin, name, first_number)
        self._unsubscribe.append(self._bus.subscribe(CHANNEL, lambda payload: self.wake()))
        if self._live_lines():
            self._unsubscribe.append(self._bus.subscribe(TYPING, self._heard_typing))
            self._presence_upto = await self._store.position()
            start_ticking(self._presence_loop, PRESENCE_EVERY_S)
        self._db.on_commit(self._committed)
        start_ticking(self._poll, POLL_S, now=True)

    async def stop(self) -> None:
        """Break off what is under way; whoever comes next repeats it."""
        if self._stopped or not self._lines:
            return
        self._stopped = True
        for loop in (self._poll, self._presence_loop):
            if loop.running:
                loop.stop()
        for unsubscribe in self._unsubscribe:
            unsubscribe()
        if self._gathering is not None and self._gathering.active():
            self._gathering.cancel()
        if self._looking is not None:
            await self._looking
        for line in self._lines.values():
            _cancel(line)
            if (running := line.running) is not None:
                running.cancel()
                await running
        await self._keeper.stop()

    def wake(self) -> None:
        """There may be something new."""
        for name in self._keeper.held:
            self._run(self._lines[name])

    def retry(self, appservice_id: str) -> None:
        """A service is there: do not wait until its pause is over."""
        line = self._lines.get(lease_name(appservice_id))
        if line is not None and line.call is not None:
            _cancel(line)
            line.pause = 0.0
            self.wake()

    def _committed(self, channels: tuple[str, ...], pos: int) -> None:
        if self._gathering is None and not self._stopped:
            self._gathering = self._reactor.callLater(GATHER_S, self._gathered)

    def _gathered(self) -> None:
        self._gathering = None
        self.wake()
        if len(self._keeper.held) < len(self._lines):
            self._bus.publish(CHANNEL, b"")

    # What is not in the log

    def _live_lines(self) -> list[_Line]:
        return [each for each in self._lines.values() if each.registration.receive_ephemeral]

    def _heard_typing(self, payload: bytes) -> None:
        room_id, room_nid = json.loads(payload)
        for line in self._live_lines():
            if len(line.typing) < MAX_LIVE:
                line.typing[room_id] = room_nid
        self._committed((), 0)

    async def _look_at_presence(self) -> None:
        since, upto = self._presence_upto, await self._store.position()
        self._presence_upto = upto
        changed = self._presence.changed_since(since)
        for line in self._live_lines() if changed else ():
            if not line.present:
                line.present_since = since
            line.present.update(list(changed or ())[: MAX_LIVE - len(line.present)])
        if changed:
            self._committed((), 0)

    async def _live(self, line: _Line) -> Live:
        """What there is of it for a service, which is told of it once."""
        rooms, line.typing = line.typing, {}
        users, line.present = line.present, set()
        live = Live()
        if rooms:
            typing = await self._store.typing(rooms, None)
            live.typing = {
                nid: (room_id, sorted(typing.get(room_id, ()))) for room_id, nid in rooms.items()
            }
        if users:
            live.presence = dict(await self._presence.events(sorted(users), line.present_since))
        return live

    def _lost(self, name: str) -> None:
        line = self._lines[name]
        _cancel(line)
        if line.running is not None:
            line.running.cancel()

    def _look_safely(self) -> None:
        if self._looking is None:
            self._looking = Deferred.fromCoroutine(self._look())

    async def _look(self) -> None:
        try:
            now = int(self._reactor.seconds() * 1000)
            missing = self._lines.keys() - self._keeper.held
            if missing:
                missing -= await self._db.read(leases.taken, missing, now)
            if missing:
                await self._keeper.claim(sorted(missing))
            self.wake()
        except Exception as error:
            _log.warning("Application services were not looked for", reason=str(error))
        finally:
            self._looking = None

    # One service

    def _run(self, line: _Line) -> None:
        if self._stopped or line.call is not None:
            return
        line.again = True
        if line.running is None:
            running = line.running = Deferred.fromCoroutine(self._serve(line))
            if running.called:
                line.running = None

    async def _serve(self, line: _Line) -> None:
        """Tell a service all there is."""
        try:
            while line.again and not self._stopped:
                line.again = False
                while await self._step(line):
                    pass
            line.pause = 0.0
        except CancelledError:
            return
        except RemoteError as error:
            self._later(line, error.reason)
        except Exception as error:
            _log.error("An application service was not told", exc_info=error)
            self._later(line, str(error))
        finally:
            line.running = None

    def _later(self, line: _Line, reason: str) -> None:
        if self._stopped:
            return
        line.pause = min(max(line.pause * 2, FIRST_PAUSE_S), LONGEST_PAUSE_S)
        _log.warning(
            "An application service does not take what it is told",
            id=line.registration.appservice_id,
            reason=reason,
            again_in=line.pause,
        )
        line.call = self._reactor.callLater(line.pause, self._due, line)

    def _due(self, line: _Line) -> None:
        line.call = None
        if lease_name(line.registration.appservice_id) in self._keeper.held:
            self._run(line)

    async def _step(self, line: _Line) -> bool:
        """One transaction, or a part of the log without one; False if there is nothing more."""
        name = line.registration.appservice_id
        row = await self._db.read(appservice_streams.get, name)
        if row.body is None:
            now_ms = int(self._reactor.seconds() * 1000)
            live = await self._live(line)
            after = max(row.pos, line.seen)
            end, upto, body = await self._db.read(_next, line.owned, after, now_ms, live)
            if body is None:
                line.seen = upto
                if upto - row.pos >= IDLE_STEP or upto < end:
                    await self._db.write(appservice_streams.skip, name, row.pos, upto)
                return upto < end
            if not await self._db.write(self._put, name, row.pos, upto, body):
                raise CancelledError
            row = StreamRow(row.pos, row.txn_number + 1, upto, body)
        assert row.body is not None
        await self._send(line, row.txn_number, row.body)
        await self._db.write(appservice_streams.taken, name, row.txn_number)
        return True

    def _put(self, txn: Transaction, name: str, old: int, upto: int, body: str) -> bool:
        if not leases.holds(txn, lease_name(name), self._owner):
            return False
        return appservice_streams.put(txn, name, old, upto, body)

    async def _send(self, line: _Line, number: int, body: str) -> None:
        answer = await self._calls.request(
            line.registration,
            "PUT",
            f"/transactions/{number}",
            body.encode(),
            timeout_s=TIMEOUT_S,
        )
        if not 200 <= answer.status < 300:
            raise RemoteError(line.registration.appservice_id, f"it answered {answer.status}")


def _next(
    txn: Transaction, owned: Owned, after: int, now_ms: int, live: Live
) -> tuple[int, int, str | None]:
    """The end of the log, how far it was looked into, and a transaction if there is one."""
    end = clock.position(txn)
    part = next_part(txn, owned, after, end, now_ms, live)
    if part.body is None:
        return end, part.upto, None
    return end, part.upto, canonical.encode_plain(part.body).decode()


def _cancel(line: _Line) -> None:
    if line.call is not None and line.call.active():
        line.call.cancel()
    line.call = None
