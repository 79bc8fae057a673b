"""Presence of users: kept in the ephemeral store, told to those who share a room.

- What other servers say of their users is believed until they say something else, or are silent
  for half an hour.
- Nothing is written to the database. A user's syncs are noted in the store every few seconds.
- Each process hears of all changes over the bus and remembers the last ones, so that a sync that
  has nothing to tell asks neither the store nor the database.
- Waiting syncs are woken once a second at most, in rooms of moderate size; in larger ones the
  change goes with the next answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, NamedTuple

import structlog
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from homeserver.core import presence as rules
from homeserver.core.errors import forbidden, invalid_param
from homeserver.core.ids import UserID, domain_of
from homeserver.core.presence import OFFLINE, Presence, State
from homeserver.core.types import JsonObject
from homeserver.rooms.write import WrittenRoom
from homeserver.semaphore import Semaphore
from homeserver.ticking import start_ticking
from homeserver.users.account_data import check_own
from homeserver.web.request import Requester
from storage import acquaintances, residence
from storage.bus import Bus
from storage.database import Database
from storage.ephemeral import EphemeralStore
from storage.feed import Feed

MAX_STATUS = 1024
"""Characters of a status message."""
MAX_SYNC = 300_000
"""Milliseconds after which a sync that was not seen to end is thought to have ended."""
NOTE_EVERY = 15_000
"""Milliseconds after which the store is told again that a user is still in touch."""
MAX_REMEMBERED = 5_000
"""Latest changes that are remembered."""
MAX_REMOTE = 100_000
"""Users of other servers who are not offline and whom this process watches."""
MAX_SHOWN = 2_000
"""People whose presence one answer may show."""
MAX_WOKEN = 200
"""Members of a room that is woken for a change of presence."""
MAX_WOKEN_ROOMS = 200
"""Rooms that are woken at a time."""
MAX_WAKERS = 100
"""Changed users for whom rooms are woken at a time."""

MAX_SIZES = 50_000
"""Rooms of which is remembered whether they are woken, for `SIZES_TTL`."""
SIZES_TTL = 600_000
"""Milliseconds."""

CHANNEL = "presence"
TICK = 5.0
WAKE = 1.0

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Local:
    """A user who has been in touch with this process."""

    running: int = 0
    """Syncs that wait now."""
    contact: int = 0
    """When a sync last began or ended."""
    noted: int = 0
    """When the store was last told of that."""
    active: int = 0
    """When the user last did something."""
    active_noted: int = 0
    """When the store was last asked because of that."""
    online: dict[str, int] = field(default_factory=dict)
    """When each device last synced without being idle."""


class RemotePresence(NamedTuple):
    """What another server says of its user; `last_active_ago` in milliseconds."""

    user_id: str
    state: State
    status_msg: str | None
    last_active_ago: int | None
    currently_active: bool


class PresenceTracker:
    """The presence of users.

    Parameters: `enabled`, whether there is presence at all: if not, everybody is offline and
    nothing is kept. `federated`, whether other servers are told, and theirs is heard.
    """

    def __init__(
        self,
        db: Database,
        store: EphemeralStore,
        feed: Feed,
        bus: Bus,
        clock: IReactorTime,
        server_name: str,
        *,
        enabled: bool = True,
        federated: bool = True,
    ) -> None:
        self.enabled = enabled
        self.is_federated = enabled and federated
        self.few = Semaphore(4)
        """Held by those who find out what presence to show to a user."""
        self._db = db
        self._store = store
        self._feed = feed
        self._bus = bus
        self._clock = clock
        self._suffix = ":" + server_name
        self._local: dict[str, _Local] = {}
        # When their servers last told of users who are not offline, the longest ago first.
        self._remote: dict[str, int] = {}
        self._changes: dict[str, int] = {}
        self.newest = 0
        """The newest value of the store's counter at which somebody changed."""
        self.revision = 0
        """Rises with every change that this process hears of."""
        self._forgotten_upto: int | None = None
        self._dirty: dict[str, None] = {}
        # Counting the members of all rooms of a user costs more than the change.
        self._sizes: dict[int, bool] = {}
        self._sizes_since = 0
        self._unsubscribe: Callable[[], None] | None = None
        self._loops = [LoopingCall(self._safely, self._tick), LoopingCall(self._safely, self._wake)]
        for loop in self._loops:
            loop.clock = clock

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)

    async def start(self) -> None:
        """Begin to follow changes and the passing of time."""
        if self.enabled:
            self._unsubscribe = self._bus.subscribe(CHANNEL, self._heard)
            self._forgotten_upto = await self._store.position()
            start_ticking(self._loops[0], TICK)
            start_ticking(self._loops[1], WAKE)

    def stop(self) -> None:
        """Follow them no more."""
        for loop in self._loops:
            if loop.running:
                loop.stop()
        if self._unsubscribe is not None:
            self._unsubscribe()

    # What users do

    async def set_presence(
        self, requester: Requester, user_id: UserID, state: State, status_msg: str | None
    ) -> None:
        """Set the requester's presence.

        Raises MatrixError: 403 M_FORBIDDEN for another user's, 400 M_INVALID_PARAM.
        """
        check_own(requester, user_id)
        if status_msg is not None and len(status_msg) > MAX_STATUS:
            raise invalid_param(f"A status message has at most {MAX_STATUS} characters.")
        if self.enabled:
            if requester.is_shadow_banned:
                status_msg = None  # which others could read
            now = self._now()
            local = self._touch(user_id)
            local.noted = 0
            old = await self._stored(user_id)
            await self._put(user_id, old, rules.set_by_user(old, state, status_msg, now))

    async def user_syncing(
        self, user_id: str, set_presence: State = "online", device_id: str | None = None
    ) -> Callable[[], None]:
        """A client of the user begins a sync; its end is told by calling what is returned."""
        if not self.enabled or set_presence == "offline":
            return _nothing
        now = self._now()
        local = self._touch(user_id)
        local.running += 1
        local.contact = now
        device = device_id or ""
        before = local.online.pop(device, 0) > now - rules.OFFLINE_AFTER
        if set_presence == "online":
            local.online[device] = now
        if now - local.noted >= NOTE_EVERY or before != (set_presence == "online"):
            local.noted = now
            elsewhere = any(
                at > now - rules.OFFLINE_AFTER
                for other, at in local.online.items()
                if other != device
            )
            try:
                old = await self._stored(user_id)
                new = rules.syncing(old, set_presence, now, is_elsewhere_online=elsewhere)
                await self._put(user_id, old, new)
            except BaseException:
                # Cancelled, or the store is away: the caller will not tell of the end.
                self._sync_ended(local)
                raise
        return lambda: self._sync_ended(local)

    def _sync_ended(self, local: _Local) -> None:
        local.running = max(local.running - 1, 0)
        local.contact = self._now()

    def active(self, user_id: str) -> None:
        """The user did something. Never fails and does not wait."""
        if not self.enabled:
            return
        now = self._now()
        local = self._touch(user_id)
        local.active = now
        if now - local.active_noted >= NOTE_EVERY:
            local.active_noted = now
            Deferred.fromCoroutine(self._acted(user_id)).addErrback(
                lambda failure: _log.warning("Presence is not kept", reason=str(failure.value))
            )

    def events_written(self, room: WrittenRoom) -> None:
        """Users of this server who send something are active."""
        for entry in room.entries:
            if entry.event.sender.endswith(self._suffix):
                self.active(entry.event.sender)

    async def _acted(self, user_id: str) -> None:
        old = await self._stored(user_id)
        await self._put(user_id, old, rules.acted(old, self._now()))

    def _touch(self, user_id: str) -> _Local:
        local = self._local.get(user_id)
        if local is None:
            local = self._local[user_id] = _Local()
        return local

    # What other servers say

    async def set_remote(self, origin: str, told: Sequence[RemotePresence]) -> None:
        """Another server tells of its users.

        Passed over: users of any other server, and those who share no room with local users.
        """
        last = {item.user_id: item for item in told if domain_of(item.user_id) == origin}
        if not self.is_federated or not last:
            return
        known = await self._db.query(residence.in_local_rooms, list(last))
        stored = await self._store.presence(known)
        now = self._now()
        for user_id, item in last.items():
            if user_id not in known:
                continue
            entry = stored.get(user_id)
            old = OFFLINE if entry is None else _parse(entry.value)
            status = None if item.status_msg is None else item.status_msg[:MAX_STATUS]
            new = rules.told(item.state, status, item.last_active_ago, item.currently_active, now)
            self._remote.pop(user_id, None)
            if new.state != "offline":
                self._remote[user_id] = now
                if len(self._remote) > MAX_REMOTE:
                    del self._remote[next(iter(self._remote))]
            await self._put(user_id, old, new)

    async def _forget_silent(self) -> None:
        """Users of whom their servers have not told for long are offline."""
        now = self._now()
        for user_id, told in list(self._remote.items()):
            if now - told < rules.REMOTE_OFFLINE_AFTER:
                return
            self._remote.pop(user_id, None)
            # Another process may have heard of them since.
            old = await self._stored(user_id)
            await self._put(user_id, old, rules.remote_passed(old, now))

    # What others see

    async def get(self, requester: Requester, user_id: UserID) -> JsonObject:
        """A user's presence, as the content of `m.presence`.

        Raises MatrixError 403 M_FORBIDDEN for users who share no room with the requester.
        """
        if user_id != requester.user_id and not await self._db.query(
            acquaintances.share_room, requester.user_id, user_id
        ):
            raise forbidden("You may see the presence of people in your rooms only.")
        if not self.enabled:
            return OFFLINE.content(0)
        return self._shown(user_id, await self._stored(user_id)).content(self._now())

    def changed_since(self, since: int) -> frozenset[str] | None:
        """Who changed after this value of the store's counter; None: that is not remembered."""
        if not self.enabled:
            return frozenset()
        if self._forgotten_upto is None or since < self._forgotten_upto:
            return None
        if since >= self.newest:
            return frozenset()
        return frozenset(user for user, serial in self._changes.items() if serial > since)

    def has_changed_since(self, since: int) -> bool:
        """Whether `changed_since` may name anybody."""
        return self.enabled and (
            self._forgotten_upto is None or since < max(self._forgotten_upto, self.newest)
        )

    def remembered_since(self, revision: int) -> dict[str, int] | None:
        """Who changed since `revision` was this, with the counter; None: not all are remembered."""
        count = self.revision - revision
        if count > MAX_REMEMBERED or count > len(self._changes) == MAX_REMEMBERED:
            return None
        # The newest come last, and each only once.
        names = islice(reversed(self._changes), count)
        return {name: self._changes[name] for name in names}

    async def stored(self, user_ids: Collection[str]) -> dict[str, Presence]:
        """What is stored of those of the users of whom anything is."""
        entries = await self._store.presence(user_ids)
        return {user_id: _parse(entry.value) for user_id, entry in entries.items()}

    def event(self, user_id: str, stored: Presence) -> JsonObject:
        """The `m.presence` event of a user of whom this is stored."""
        content = self._shown(user_id, stored).content(self._now())
        return {"type": "m.presence", "sender": user_id, "content": content}

    async def sharing(self, user_id: str, among: Collection[str] | None = None) -> set[str]:
        """Those of the users (or all) who share a room with the user."""
        if not self.enabled or (among is not None and not among):
            return set()
        return await self._db.read(acquaintances.sharing, user_id, among, MAX_SHOWN)

    async def events(
        self, user_ids: Collection[str], since: int | None = None
    ) -> dict[str, JsonObject]:
        """`m.presence` events of these users, by user ID.

        Of those who changed after `since`; if that is None, of all but the offline ones.
        """
        if not self.enabled or not user_ids:
            return {}
        now = self._now()
        found = {}
        for user_id, entry in (await self._store.presence(user_ids)).items():
            presence = self._shown(user_id, _parse(entry.value))
            if entry.serial > since if since is not None else presence.state != "offline":
                content = presence.content(now)
                found[user_id] = {"type": "m.presence", "sender": user_id, "content": content}
        return found

    def _shown(self, user_id: str, stored: Presence) -> Presence:
        """A stored presence with what happened since it was stored."""
        local = self._local.get(user_id)
        if local is not None and stored.currently_active and local.active > stored.active:
            stored = replace(stored, active=local.active)
        passed = rules.passed if user_id.endswith(self._suffix) else rules.remote_passed
        return passed(stored, self._now())

    # Keeping it

    async def _stored(self, user_id: str) -> Presence:
        entry = (await self._store.presence([user_id])).get(user_id)
        return OFFLINE if entry is None else _parse(entry.value)

    async def _put(self, user_id: str, old: Presence, new: Presence) -> None:
        if new == old:
            return
        tell = rules.worth_telling(old, new)
        if new.state != "online" and user_id in self._local:
            self._local[user_id].active_noted = 0
        text = json.dumps(new.dump(), ensure_ascii=False)
        serial = await self._store.put_presence(user_id, text, announce=tell)
        if tell:
            self._remember(user_id, serial)
            self._dirty[user_id] = None
            payload = json.dumps([user_id, serial], ensure_ascii=False).encode()
            self._bus.publish(CHANNEL, payload)

    def _heard(self, payload: bytes) -> None:
        user_id, serial = json.loads(payload)
        self._remember(user_id, serial)

    def _remember(self, user_id: str, serial: int) -> None:
        if self._changes.get(user_id) == serial:
            return  # The bus tells this process, too, what it did itself.
        self.revision += 1
        self._changes.pop(user_id, None)
        self._changes[user_id] = serial
        self.newest = max(self.newest, serial)
        if len(self._changes) > MAX_REMEMBERED:
            first = next(iter(self._changes))
            self._forgotten_upto = max(self._forgotten_upto or 0, self._changes.pop(first))

    async def _tick(self) -> None:
        """Let time pass for the users of this process."""
        await self._forget_silent()
        now = self._now()
        for user_id, local in list(self._local.items()):
            if local.running and now - local.contact < MAX_SYNC:
                if now - local.noted >= NOTE_EVERY:
                    local.noted = now
                    await self._pass(user_id, now, now)
                continue
            presence = await self._pass(user_id, now, local.contact)
            if presence.state == "offline" and not local.running:
                self._local.pop(user_id, None)

    async def _pass(self, user_id: str, now: int, contact: int) -> Presence:
        old = await self._stored(user_id)
        touched = old if old.contact >= contact else replace(old, contact=contact)
        local = self._local.get(user_id)
        if local is not None and touched.state == "online" and local.active > touched.active:
            touched = replace(touched, active=local.active)
        new = rules.passed(touched, now)
        await self._put(user_id, old, new)
        return new

    async def _wake(self) -> None:
        """Wake those who wait in rooms of users who changed."""
        users = list(self._dirty)[:MAX_WAKERS]
        for user_id in users:
            del self._dirty[user_id]
        if users:
            if self._now() - self._sizes_since > SIZES_TTL or len(self._sizes) > MAX_SIZES:
                self._sizes, self._sizes_since = {}, self._now()
            rooms = await self._db.read(acquaintances.rooms_by_size, users, MAX_WOKEN, self._sizes)
            self._sizes.update(rooms)
            small = [nid for nid, is_small in rooms.items() if is_small]
            self._feed.publish(*(f"room:{nid}" for nid in small[:MAX_WOKEN_ROOMS]))

    def _safely(self, work: Callable[[], Any]) -> Deferred[None]:
        def failed(failure: Any) -> None:
            _log.warning("Presence is not kept", reason=str(failure.value))

        return Deferred.fromCoroutine(work()).addErrback(failed)


def _parse(text: str) -> Presence:
    try:
        return Presence.load(json.loads(text))
    except ValueError:
        return OFFLINE


def _nothing() -> None:
    return
