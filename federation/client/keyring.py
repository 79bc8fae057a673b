"""The keys of other servers: known, found in the table, or asked for.

Server-Server API, "Retrieving server keys". A key is looked for in memory, in the table, at the
server itself and then at the notaries of the configuration (`federation.trusted_key_servers`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import structlog
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from federation.client.errors import RemoteError
from federation.client.key_answer import BadKeyAnswer, read_answer
from federation.client.key_writes import KeyWrites
from homeserver.cache import Cache
from homeserver.core.ids import domain_of
from homeserver.core.room_versions import RoomVersion
from homeserver.core.signing import (
    KnownKey,
    SignatureError,
    SigningKey,
    parse_verify_key,
    required_signers,
    signatures_of,
    verify_json,
)
from homeserver.core.types import JsonObject
from homeserver.semaphore import Semaphore
from storage import server_keys
from storage.database import Database
from storage.server_keys import Answer, KeyRow

ServerKey: TypeAlias = tuple[str, str]
"""Server name and key ID."""

POLICY_KEY_ID = "ed25519:policy_server"
"""The key of a policy server is told by the room, never by the server ("Policy Servers")."""
MAX_SIGNATURES = 20
"""Of more signatures of one server on an event, the rest is not looked at."""

_FOREVER = 2**53 - 1
_AT_ONCE = 20
_TIMEOUT_S = 10.0
_NOTARY_TIMEOUT_S = 30.0
_MAX_ANSWER = 256 * 1024
_MAX_NOTARY_ANSWER = 4 * 1024 * 1024
_NOTARY_BATCH = 100

_log = structlog.get_logger(__name__)


class KeyClient(Protocol):
    """What is needed of `federation.client.requests.FederationClient`. Raises RemoteError."""

    async def get_json(
        self,
        destination: str,
        path: str,
        *,
        signed: bool = ...,
        timeout_s: float = ...,
        max_bytes: int = ...,
    ) -> JsonObject: ...

    async def post_json(
        self,
        destination: str,
        path: str,
        body: JsonObject,
        *,
        signed: bool = ...,
        timeout_s: float = ...,
        max_bytes: int = ...,
    ) -> JsonObject: ...


class Pauses:
    """When something may be tried again: soon after a success, ever later after failures."""

    AFTER_SUCCESS = 30_000
    AFTER_FAILURE = 10_000
    LONGEST = 600_000

    def __init__(self, clock: IReactorTime, name: str) -> None:
        """`name`: of the cache."""
        self._clock = clock
        # name -> (failures in a row, time in ms)
        self._next: Cache[Hashable, tuple[int, float]] = Cache(name, share=0.05)
        self.caches = (self._next,)

    def is_over(self, name: Hashable) -> bool:
        """May it be tried?"""
        return self._next.get(name, (0, 0.0))[1] <= self._clock.seconds() * 1000

    def succeeded(self, name: Hashable) -> None:
        self._next[name] = (0, self._clock.seconds() * 1000 + self.AFTER_SUCCESS)

    def failed(self, name: Hashable) -> None:
        failures = self._next.get(name, (0, 0.0))[0]
        pause = min(self.AFTER_FAILURE * 2 ** min(failures, 10), self.LONGEST)
        self._next[name] = (failures + 1, self._clock.seconds() * 1000 + pause)


def _key_size(name: ServerKey, key: KnownKey) -> int:
    # A parsed key has its bytes twice.
    return 900 + len(name[0]) + len(name[1])


class Keyring:
    """Finds keys that signatures are checked with.

    `own_keys` are those of this server, retired ones with `expired_ts`.
    """

    def __init__(
        self,
        db: Database,
        client: KeyClient,
        clock: IReactorTime,
        server_name: str,
        own_keys: Iterable[SigningKey],
        trusted_key_servers: Sequence[str] = (),
    ) -> None:
        self._db = db
        self._client = client
        self._clock = clock
        self._server_name = server_name
        now_ms = self._now_ms()
        self._own = {
            key.key_id: KnownKey(
                key.verify_key, _FOREVER if key.expired_ts is None else min(key.expired_ts, now_ms)
            )
            for key in own_keys
        }
        self._notaries = {name: Semaphore(1) for name in trusted_key_servers if name != server_name}
        self._known: Cache[ServerKey, KnownKey] = Cache("server_keys", _key_size, share=0.1)
        self._pauses = Pauses(clock, "key_servers")
        self.caches = (self._known, *self._pauses.caches)
        # server -> those who wait for its answer
        self._fetching: dict[str, list[Deferred[None]]] = {}
        self._requests: dict[str, Deferred[Any]] = {}
        self._places = Semaphore(_AT_ONCE)
        self._writes = KeyWrites(db, self._now_ms, self._learn)
        db.on_invalidate(server_keys.CHANGED, self._forget, self._known.clear)

    async def lookup(
        self,
        wanted: Mapping[ServerKey, int],
        before_asking: Callable[[], object] = lambda: None,
    ) -> dict[ServerKey, KnownKey]:
        """The keys that are known of those wanted.

        The values of `wanted` are times (ms) until which a key must be valid at least. For one
        that is not, others are asked; what they do not better is returned as it is, so that the
        caller must still compare `valid_until_ts` where it counts. What `before_asking`, which is
        called before others are asked, raises is raised here.
        """
        found: dict[ServerKey, KnownKey] = {}
        missing = self._take_known(wanted, found)
        if missing:
            await self._load(_servers(missing))
            missing = self._take_known(missing, found)
        if missing:
            before_asking()
            await self._ask_servers(_servers(missing))
            missing = self._take_known(missing, found)
        for notary, lock in self._notaries.items():
            if missing:
                await lock.run(self._ask_notary_turn, notary, missing)
                missing = self._take_known(missing, found)
        return found

    async def key_for_request(
        self, server: str, key_id: str, before_asking: Callable[[], object] = lambda: None
    ) -> KnownKey | None:
        """A key of a server if it is valid now (Room Versions 5, "Signing key validity period").

        `before_asking`: see `lookup`.
        """
        now_ms = self._now_ms()
        wanted = {(server, key_id): now_ms}
        key = (await self.lookup(wanted, before_asking)).get((server, key_id))
        return key if key is not None and key.valid_until_ts >= now_ms else None

    async def keys_for(self, wanted: Mapping[ServerKey, int]) -> dict[str, dict[str, KnownKey]]:
        """The keys for `signing.verify_event`, by server and key ID.

        Parameters: `wanted`, what `want_keys` has noted of the events.
        """
        return _by_server(await self.lookup(wanted))

    def keys_at_hand(
        self, pdus: Iterable[JsonObject], version: RoomVersion
    ) -> dict[str, dict[str, KnownKey]] | None:
        """What `keys_for` would return of events, if nobody has to be asked for any of it."""
        found: dict[ServerKey, KnownKey] = {}
        if self._take_known(_wanted(pdus, version), found):
            return None
        return _by_server(found)

    async def refresh(self, servers: Collection[str], within_s: float) -> None:
        """Ask servers for their keys anew, those that may be asked, and wait so long for them.

        The answers go into the table; late ones too.
        """
        asking = Deferred.fromCoroutine(self._ask_servers(servers))
        try:
            await asking.addTimeout(within_s, self._clock)
        except DeferredTimeout:
            return

    def stop(self) -> None:
        """Give up the requests that are under way."""
        for request in list(self._requests.values()):
            request.cancel()

    def _now_ms(self) -> int:
        return int(self._clock.seconds() * 1000)

    def _forget(self, server: str) -> None:
        for key in [key for key in self._known if key[0] == server]:
            self._known.pop(key)

    def _learn(self, rows: Iterable[KeyRow]) -> None:
        for row in rows:
            key = KnownKey(parse_verify_key(row.verify_key), row.valid_until_ts)
            self._known[row.server_name, row.key_id] = key

    def _take_known(
        self, wanted: Mapping[ServerKey, int], found: dict[ServerKey, KnownKey]
    ) -> dict[ServerKey, int]:
        """Put what is in memory into `found`; returns what others are to be asked for."""
        missing: dict[ServerKey, int] = {}
        for key, minimum in wanted.items():
            is_own = key[0] == self._server_name
            known = self._own.get(key[1]) if is_own else self._known.get(key)
            if known is not None:
                found[key] = known
            if not is_own and (known is None or known.valid_until_ts < minimum):
                missing[key] = minimum
        return missing

    async def _ask_servers(self, servers: Collection[str]) -> None:
        """Those that are asked already are waited for, those that failed lately are not asked."""
        waiting = [
            self._ask_together(server)
            for server in servers
            if server in self._fetching or self._pauses.is_over(server)
        ]
        for _, result in await DeferredList(waiting, consumeErrors=True):
            if isinstance(result, Failure):
                result.raiseException()

    def _ask_together(self, server: str) -> Deferred[None]:
        """Ask a server, once for all that want to know at the same time."""
        waiter: Deferred[None] = Deferred()
        waiters = self._fetching.setdefault(server, [])
        waiters.append(waiter)
        if len(waiters) == 1:
            asking = self._places.run(lambda: Deferred.fromCoroutine(self._ask_server(server)))
            self._requests[server] = asking
            asking.addBoth(lambda result: self._tell(server, result))
        return waiter

    def _tell(self, server: str, result: Any) -> None:
        del self._requests[server]
        for waiter in self._fetching.pop(server):
            waiter.callback(result)  # a Failure calls the errbacks

    async def _ask_server(self, server: str) -> None:
        try:
            answer = await self._client.get_json(
                server,
                "/_matrix/key/v2/server",
                signed=False,
                timeout_s=_TIMEOUT_S,
                max_bytes=_MAX_ANSWER,
            )
            read = read_answer(answer, server, self._now_ms(), is_direct=True)
        except RemoteError:  # which the client has logged
            self._pauses.failed(server)
            return
        except BadKeyAnswer as error:
            self._pauses.failed(server)
            _log.warning("bad keys from server", server=server, reason=str(error))
            return
        self._pauses.succeeded(server)
        await self._store([read])

    async def _store(self, answers: list[Answer]) -> None:
        await self._writes.store(answers)

    def _ask_notary_turn(self, notary: str, wanted: Mapping[ServerKey, int]) -> Deferred[None]:
        return Deferred.fromCoroutine(self._ask_notary(notary, wanted))

    async def _ask_notary(self, notary: str, wanted: Mapping[ServerKey, int]) -> None:
        """Ask a notary for what is missing still and was not asked of it lately."""
        missing = {
            key: minimum
            for key, minimum in self._take_known(wanted, {}).items()
            if self._pauses.is_over((notary, *key))
        }
        by_server: dict[str, JsonObject] = {}
        for (server, key_id), minimum in missing.items():
            criteria = {"minimum_valid_until_ts": max(0, min(minimum, _FOREVER))}
            by_server.setdefault(server, {})[key_id] = criteria
        servers = list(by_server)
        for start in range(0, len(servers), _NOTARY_BATCH):
            if not self._pauses.is_over(f"notary {notary}"):
                return
            batch = {server: by_server[server] for server in servers[start : start + _NOTARY_BATCH]}
            await self._ask_notary_batch(notary, batch)
            for server, key_ids in batch.items():
                for key_id in key_ids:
                    self._pauses.succeeded((notary, server, key_id))

    async def _ask_notary_batch(self, notary: str, batch: Mapping[str, JsonObject]) -> None:
        try:
            answer = await self._client.post_json(
                notary,
                "/_matrix/key/v2/query",
                {"server_keys": dict(batch)},
                signed=False,
                timeout_s=_NOTARY_TIMEOUT_S,
                max_bytes=_MAX_NOTARY_ANSWER,
            )
        except RemoteError:
            self._pauses.failed(f"notary {notary}")
            return
        entries = answer.get("server_keys")
        good: list[Answer] = []
        for entry in entries if isinstance(entries, list) else ():
            server = entry.get("server_name") if isinstance(entry, dict) else None
            if not isinstance(server, str) or server not in batch:
                continue
            try:
                await self._check_notary(notary, entry)
                good.append(read_answer(entry, server, self._now_ms(), is_direct=False))
            except (BadKeyAnswer, SignatureError) as error:
                _log.warning(
                    "bad keys from notary", notary=notary, server=server, reason=str(error)
                )
        if good:
            await self._store(good)

    async def _check_notary(self, notary: str, entry: JsonObject) -> None:
        """Raise SignatureError unless the notary has signed with a key of its own."""
        for key_id in list(signatures_of(entry, notary))[:MAX_SIGNATURES]:
            known = await self._notary_key(notary, key_id)
            if known is not None:
                verify_json(entry, notary, key_id, known.verify_key)
                return
        raise SignatureError(f"Not signed by {notary} with a known key.")

    async def _notary_key(self, notary: str, key_id: str) -> KnownKey | None:
        """A valid key of a notary, from itself: no other notary vouches for it."""
        wanted = {(notary, key_id): self._now_ms()}
        found: dict[ServerKey, KnownKey] = {}
        if self._take_known(wanted, found):
            await self._load([notary])
        if self._take_known(wanted, found):
            await self._ask_servers([notary])
        return None if self._take_known(wanted, found) else found[notary, key_id]

    async def _load(self, servers: Collection[str]) -> None:
        self._learn(await self._db.read(server_keys.of_servers, servers))


def _wanted(pdus: Iterable[JsonObject], version: RoomVersion) -> dict[ServerKey, int]:
    """The keys by which events are signed, with the times (ms) until which they must be valid."""
    wanted: dict[ServerKey, int] = {}
    for pdu in pdus:
        want_keys(wanted, signatures_by_signer(pdu, version), pdu.get("origin_server_ts"), version)
    return wanted


Signatures: TypeAlias = Sequence[tuple[str, Mapping[str, str]]]
"""The servers that must have signed an event, each with its signatures by key ID."""


def signatures_by_signer(pdu: JsonObject, version: RoomVersion) -> Signatures:
    """What is looked at of an event's signatures."""
    kind, sender = pdu.get("type"), pdu.get("sender")
    if version.event_format != 1 and kind != "m.room.member" and type(sender) is str:
        # What `required_signers` says of these.
        server = domain_of(sender)
        return ((server, signatures_of(pdu, server)),)
    return [(server, signatures_of(pdu, server)) for server in required_signers(pdu, version)]


def want_keys(
    wanted: dict[ServerKey, int], signatures: Signatures, sent: Any, version: RoomVersion
) -> None:
    """Note in `wanted` which keys an event needs, and until when (ms) they must be valid: where
    the room version says so, when it was sent."""
    minimum = sent if version.key_validity_enforced and type(sent) is int else 0
    for server, by_key in signatures:
        for key_id in by_key if len(by_key) <= MAX_SIGNATURES else list(by_key)[:MAX_SIGNATURES]:
            if key_id == POLICY_KEY_ID:
                continue
            key = (server, key_id)
            known = wanted.get(key)
            if known is None or known < minimum:
                wanted[key] = max(minimum, 0)


def _by_server(found: Mapping[ServerKey, KnownKey]) -> dict[str, dict[str, KnownKey]]:
    keys: dict[str, dict[str, KnownKey]] = {}
    for (server, key_id), known in found.items():
        keys.setdefault(server, {})[key_id] = known
    return keys


def _servers(wanted: Iterable[ServerKey]) -> set[str]:
    return {server for server, _ in wanted}
