"""Device lists of other servers' users (server-server API, "Device Management").

A list is kept while its user is in a room with a user of this server, since their server then
tells of every change. What it tells is applied if it follows on what is known; else the list is
marked as stale, and fetched again: at once, later by a job if that fails, and by whoever asks for
the user's keys.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import structlog
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from federation.client.errors import RemoteError, RemoteHttpError
from federation.client.requests import FederationClient, federation_path
from homeserver.core import key_objects
from homeserver.core.ids import InvalidIdentifier, UserID
from homeserver.core.types import JsonObject
from homeserver.encryption import remote_answers
from homeserver.encryption.device_lists import list_changed
from homeserver.encryption.remote_answers import BadDeviceList, DeviceList
from homeserver.semaphore import Semaphore
from storage import clock as position_clock
from storage import jobs, remote_devices
from storage.database import Database
from storage.remote_devices import RemoteDevice, RemoteList
from storage.transaction import Transaction

FETCH_TIMEOUT_S = 20.0
MAX_ANSWER_BYTES = 20 * 1024 * 1024
RETRY_AFTER_MS = 30_000
AT_ONCE = 3
"""Lists that are fetched from one server at the same time."""

_log = structlog.get_logger(__name__)


class RemoteDevices:
    """Keeps device lists of other servers' users."""

    KIND = "device_list_resync"

    def __init__(self, db: Database, client: FederationClient, clock: IReactorTime) -> None:
        self._db = db
        self._client = client
        self._clock = clock
        self._fetching: dict[str, Deferred[None]] = {}
        self._waiting: dict[str, list[Deferred[None]]] = {}
        self._slots: dict[str, Semaphore] = {}
        self._stopped = False

    async def updated(self, origin: str, content: JsonObject) -> None:
        """Take an `m.device_list_update` from a server; one that is not usable is dropped.

        Returns when it is stored; a list that must be fetched is fetched after that.
        """
        device_id = content.get("device_id")
        user_id = _user_of(origin, content)
        if user_id is None or not key_objects.is_name(device_id):
            _log.info(
                "device list update dropped",
                origin=origin,
                user_id=str(content.get("user_id"))[:255],
            )
            return
        if await self._db.write(self._update, user_id, content):
            self._fetch_soon(user_id)

    def _update(self, txn: Transaction, user_id: str, content: JsonObject) -> bool:
        """Apply an update; True if the list must be fetched."""
        known = remote_devices.lock_list(txn, user_id)
        if not remote_devices.shared(txn, [user_id]):
            if known is not None:
                remote_devices.delete_list(txn, user_id)
            return False
        stream_id = remote_answers.stream_id(content.get("stream_id"))
        if known is not None and not known.stale and stream_id is not None:
            if known.stream_id == stream_id:
                return False  # the list has it already
            if _follows(known, content) and self._apply(txn, known, stream_id, content):
                return False
        self._mark_stale(txn, user_id)
        return True

    def _apply(
        self, txn: Transaction, known: RemoteList, stream_id: int, content: JsonObject
    ) -> bool:
        """Change one device of a list; False if it is one that the list does not have."""
        user_id, device_id = known.user_id, content["device_id"]
        is_deleted = content.get("deleted") is True
        devices = remote_devices.get_devices(txn, [user_id])[user_id]
        if not is_deleted and device_id not in devices:
            return False
        if is_deleted:
            remote_devices.delete_device(txn, user_id, device_id)
        else:
            device = remote_answers.parse_device(content, user_id)
            remote_devices.put_devices(txn, user_id, [device])
        now = position_clock.position(txn)
        remote_devices.put_list(
            txn,
            known._replace(stream_id=stream_id, heard=known.heard + 1, fetched_pos=now),
        )
        list_changed(txn, user_id)
        return True

    def _mark_stale(self, txn: Transaction, user_id: str) -> None:
        remote_devices.mark_stale(txn, user_id)
        fetch_later(txn, user_id, int(self._clock.seconds() * 1000))

    async def signing_key_updated(self, origin: str, content: JsonObject) -> None:
        """Take an `m.signing_key_update` from a server; one that is not usable is dropped."""
        user_id = _user_of(origin, content)
        keys = {}
        for usage in ("master", "self_signing"):
            key = content.get(f"{usage}_key")
            if key is not None and user_id is not None:
                keys[usage] = remote_answers.cross_signing_key(key, user_id, usage)
        if user_id is None or None in keys.values():
            _log.info(
                "signing key update dropped",
                origin=origin,
                user_id=str(content.get("user_id"))[:255],
            )
            return
        texts = {usage: remote_answers.text(key) for usage, key in keys.items()}
        if await self._db.write(self._update_signing_keys, user_id, texts):
            self._fetch_soon(user_id)

    def _update_signing_keys(
        self, txn: Transaction, user_id: str, keys: dict[str, str | None]
    ) -> bool:
        known = remote_devices.lock_list(txn, user_id)
        if not remote_devices.shared(txn, [user_id]):
            return False
        if known is None or known.stale:
            self._mark_stale(txn, user_id)
            return True
        changed = known._replace(
            heard=known.heard + 1,
            master_key=keys.get("master", known.master_key),
            self_signing_key=keys.get("self_signing", known.self_signing_key),
        )
        remote_devices.put_list(txn, changed)
        if changed._replace(heard=known.heard) != known:
            list_changed(txn, user_id)
        return False

    def _fetch_soon(self, user_id: str) -> None:
        """Fetch a list in the background."""

        async def fetch() -> None:
            try:
                await self.fetch(user_id)
            except RemoteError:
                pass  # the client has said why; the job tries again
            except BadDeviceList as error:
                _log.info("device list not usable", user_id=user_id, reason=str(error))
            except Exception:
                if not self._stopped:
                    _log.error("fetching a device list failed", user_id=user_id, exc_info=True)

        Deferred.fromCoroutine(fetch())

    async def run(self, job: jobs.Job) -> None:
        """The job that fetches the stale lists of a server's users, one after the other.

        Raises NotYet when the server does not answer, to be run again later.
        """
        server_name, seen = job.payload["server"], set[str]()
        while True:
            stale = await self._db.read(remote_devices.stale_lists, server_name)
            left = [user_id for user_id in stale if user_id not in seen]
            if not left:
                return
            for user_id in left:
                seen.add(user_id)
                try:
                    await self.fetch(user_id)
                except BadDeviceList as error:
                    _log.info("device list not usable", user_id=user_id, reason=str(error))
                except RemoteError as error:
                    raise jobs.NotYet(str(error)) from error

    async def fetch(self, user_id: str) -> None:
        """Fetch a list if it is stale; once, however many ask at the same time.

        Raises RemoteError, BadDeviceList.
        """
        waiting: Deferred[None] = Deferred()
        others = self._waiting.setdefault(user_id, [])
        others.append(waiting)
        if len(others) == 1:
            under_way = self._fetching[user_id] = Deferred.fromCoroutine(self._fetch(user_id))
            under_way.addBoth(self._fetched, user_id)
        await waiting

    def _fetched(self, result: Failure | None, user_id: str) -> None:
        self._fetching.pop(user_id, None)
        for waiting in self._waiting.pop(user_id, ()):
            if isinstance(result, Failure):
                waiting.errback(result)
            else:
                waiting.callback(None)

    async def _fetch(self, user_id: str) -> None:
        while not self._stopped:
            known, now = await self._db.read(_state, user_id)
            if known is None or not known.stale:
                return
            # A slow server keeps none but its own waiting.
            slots = self._slots.setdefault(UserID(user_id).domain, Semaphore(AT_ONCE))
            await slots.acquire()
            try:
                found = await self._ask(user_id)
            finally:
                slots.release()
            # Something heard of meanwhile may be newer than the answer: ask again.
            if await self._db.write(store, user_id, found, known.heard, now):
                return

    async def _ask(self, user_id: str) -> DeviceList:
        path = federation_path("/_matrix/federation/v1/user/devices/{}", user_id)
        try:
            answer = await self._client.get_json(
                UserID(user_id).domain,
                path,
                timeout_s=FETCH_TIMEOUT_S,
                max_bytes=MAX_ANSWER_BYTES,
            )
        except RemoteHttpError as error:
            if error.status == 404 and error.errcode == "M_NOT_FOUND":
                return DeviceList(None, {}, None, None)
            raise
        return remote_answers.parse_devices(answer, user_id)

    def stop(self) -> None:
        """Begin nothing new, and give up what is under way."""
        self._stopped = True
        for under_way in list(self._fetching.values()):
            under_way.cancel()


def fetch_later(txn: Transaction, user_id: str, now_ms: int) -> None:
    """Have the stale lists of a user's server fetched by a job."""
    server_name = UserID(user_id).domain
    jobs.enqueue(
        txn,
        RemoteDevices.KIND,
        {"server": server_name},
        now_ms,
        run_at=now_ms + RETRY_AFTER_MS,
        dedup_key=server_name,
    )


def not_answered(txn: Transaction, user_ids: Collection[str], now_ms: int) -> None:
    """Somebody asked for lists that could not be had: they are told when these can be."""
    for user_id in sorted(user_ids):
        remote_devices.mark_stale(txn, user_id, asked=True)
        fetch_later(txn, user_id, now_ms)


def answered_otherwise(txn: Transaction, user_id: str) -> None:
    """Somebody got an answer that is not the list that is kept: they are told to ask again."""
    known = remote_devices.lock_list(txn, user_id)
    if known is None:
        return
    if known.stale:
        asked = max(known.fetched_pos, remote_devices.ASKED_FOR)
        remote_devices.put_list(txn, known._replace(fetched_pos=asked))
    else:
        list_changed(txn, user_id)


def store(txn: Transaction, user_id: str, found: DeviceList, heard: int, fetched_pos: int) -> bool:
    """Keep a list that was fetched; False if something was heard of the user meanwhile.

    `heard` and `fetched_pos` are as before the list was asked for; `heard` 0 if nothing was known.
    Advances the clock if somebody is to be told: to be called last in a transaction.
    """
    known = remote_devices.lock_list(txn, user_id)
    if (known.heard if known else 0) != heard:
        return False
    if not remote_devices.shared(txn, [user_id]):
        remote_devices.delete_list(txn, user_id)
        return True
    before = remote_devices.get_devices(txn, [user_id])[user_id]
    is_news = known is not None and _is_news(known, before, found)
    row = RemoteList(
        user_id,
        found.stream_id,
        heard,
        False,
        max(fetched_pos, 1),
        found.master_key,
        found.self_signing_key,
    )
    remote_devices.put_list(txn, row)
    if before != found.devices:
        remote_devices.replace_devices(txn, user_id, found.devices.values())
    if is_news:
        list_changed(txn, user_id)
    return True


def _is_news(known: RemoteList, before: Mapping[str, RemoteDevice], found: DeviceList) -> bool:
    """Whether people have to be told of a list that was fetched: it is another one than they
    have, or than they were told nothing of, although its server announced a change."""
    return (
        known.fetched_pos in (remote_devices.UNASKED, remote_devices.ASKED_FOR)
        or _with_keys(before.values()) != _with_keys(found.devices.values())
        or (known.master_key, known.self_signing_key) != (found.master_key, found.self_signing_key)
    )


def _with_keys(devices: Collection[RemoteDevice]) -> set[RemoteDevice]:
    return {device for device in devices if device.keys is not None}


def _state(txn: Transaction, user_id: str) -> tuple[RemoteList | None, int]:
    found = remote_devices.get_lists(txn, [user_id])
    return found.get(user_id), position_clock.position(txn)


def _user_of(origin: str, content: JsonObject) -> UserID | None:
    """The user that a message is about, if they are one of the server that sent it."""
    named = content.get("user_id")
    if not isinstance(named, str):
        return None
    try:
        user_id = UserID.parse(named)
    except InvalidIdentifier:
        return None
    return user_id if user_id.domain == origin else None


def _follows(known: RemoteList, content: JsonObject) -> bool:
    """Whether a change is the next after what is known."""
    previous = content.get("prev_id")
    if not isinstance(previous, list) or not previous or known.stream_id is None:
        return False
    return all(each == known.stream_id for each in previous)
