"""The first checks of events that other servers send.

Server-Server API, "Checks performed on receipt of a PDU", steps 1 to 3: the event is valid, its
signatures are right, its content hash is right (or else it is redacted before it goes on). Many
events are checked together: their keys are looked for in one go, and their signatures are
verified in a thread, which leaves the reactor to others.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.threads import deferToThreadPool

from homeserver.core.canonical import CanonicalJSONError
from homeserver.core.event import Event
from homeserver.core.event_format import (
    EventFormatError,
    EventTooLarge,
    check_pdu,
    check_received_sizes,
)
from homeserver.core.room_versions import RoomVersion
from homeserver.core.signing import (
    KnownKey,
    SignatureError,
    checked_message,
    content_hash_matches,
    event_id_for,
    required_signers,
    verify_event,
)
from homeserver.core.types import JsonObject
from homeserver.semaphore import Semaphore

T = TypeVar("T")

INLINE = 2
"""So few events are checked at once, without a thread."""

CHUNK = 200
"""Events that one thread checks before it lets others have their turn."""

CORES = len(os.sched_getaffinity(0))
"""Threads in which many events are checked: checking signatures is what they can do together."""

Keys = Mapping[str, Mapping[str, KnownKey]]
"""By server and key ID."""


class EventKeys(Protocol):
    """What is needed of `federation.client.keyring.Keyring`."""

    async def keys_for_events(
        self, pdus: Sequence[JsonObject], version: RoomVersion
    ) -> dict[str, dict[str, KnownKey]]: ...

    def keys_at_hand(
        self, pdus: Sequence[JsonObject], version: RoomVersion
    ) -> dict[str, dict[str, KnownKey]] | None: ...


class CheckedPdu(NamedTuple):
    """What became of a PDU.

    `event_id` is None where the PDU is not even fit to have one; `event` is None if it is refused,
    and redacted if its content hash is wrong; `error` says why it is refused.
    """

    event_id: str | None
    event: Event | None
    error: str | None


class PduChecker:
    """Checks events of other servers; see the module.

    Parameters: `reactor` with its thread pool; `keys` finds the keys.
    """

    def __init__(self, keys: EventKeys, reactor: Any) -> None:
        self._keys = keys
        self._reactor = reactor
        self._clock: IReactorTime = reactor
        self._turns = Semaphore(CORES)

    async def check(
        self,
        pdus: Sequence[Any],
        version: RoomVersion,
        *,
        room_id: str | None = None,
        is_new: bool = True,
    ) -> list[CheckedPdu]:
        """What became of each PDU, in the same order.

        Parameters: `room_id`, the only room that events may belong to, if given; `is_new`, False
        for those that this server asked for, which may name more events than new ones may.
        """
        # What may have no form of an event makes nobody ask others for keys. But if all keys are
        # known, one turn in a thread does.
        if len(pdus) <= CHUNK and all(map(_names_its_signers, pdus)):
            at_hand = self._keys.keys_at_hand(pdus, version)
            if at_hand is not None:
                known: Keys = at_hand
                now_ms = int(self._clock.seconds() * 1000)
                return await self._run(
                    pdus,
                    lambda part: [
                        _signed(*_shape(p, version, room_id, is_new), known, now_ms) for p in part
                    ],
                )
        shaped = await self._run(
            pdus, lambda part: [_shape(p, version, room_id, is_new) for p in part]
        )
        sound = [item.event for item, _ in shaped if item.event is not None]
        if not sound:
            return [item for item, _ in shaped]
        keys = await self._keys.keys_for_events([event.pdu for event in sound], version)
        now_ms = int(self._clock.seconds() * 1000)
        return await self._run(
            shaped, lambda part: [_signed(item, message, keys, now_ms) for item, message in part]
        )

    async def _run(self, items: Sequence[Any], work: Callable[[Sequence[Any]], list[T]]) -> list[T]:
        if len(items) <= INLINE:
            return work(items)
        if len(items) <= CHUNK:
            return await self._in_thread(work, items)
        # Those who have many take turns with each other, and leave threads for those with few.
        chunks = [
            self._turns.run(self._in_thread, work, items[start : start + CHUNK])
            for start in range(0, len(items), CHUNK)
        ]
        return [item for part in await gatherResults(chunks, consumeErrors=True) for item in part]

    def _in_thread(
        self, work: Callable[[Sequence[Any]], list[T]], items: Sequence[Any]
    ) -> Deferred[list[T]]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), work, items)


def _names_its_signers(pdu: Any) -> bool:
    """Whether it can be told who must have signed an event that was not looked at yet."""
    return (
        type(pdu) is dict
        and type(pdu.get("sender")) is str
        and type(pdu.get("event_id", "")) is str
    )


def _shape(
    pdu: Any, version: RoomVersion, room_id: str | None, is_new: bool
) -> tuple[CheckedPdu, bytes]:
    """Step 1, the event's ID, and what is signed of it."""
    try:
        encoded = check_pdu(pdu, version, is_new=is_new)
        signed, text = pdu, encoded or b""
        if "unsigned" in pdu:
            # Nobody signs what is in `unsigned`, and nothing of it is ours to repeat.
            text = b""
            signed = {key: value for key, value in pdu.items() if key != "unsigned"}
        # A copy has no more memory than it needs, as the encoder's has.
        message = bytes(memoryview(checked_message(signed, version)))
        event_id = event_id_for(signed, version, message)
        event = Event.checked(signed, version, event_id, bytes(memoryview(text)))
    except (EventFormatError, CanonicalJSONError) as problem:
        return CheckedPdu(None, None, str(problem)), b""
    except RecursionError:
        return CheckedPdu(None, None, "The event is nested too deeply."), b""
    try:
        check_received_sizes(pdu, version, encoded)
    except EventTooLarge as problem:
        return CheckedPdu(event.event_id, None, str(problem)), b""
    if room_id is not None and event.room_id != room_id:
        return CheckedPdu(event.event_id, None, "The event belongs to another room."), b""
    return CheckedPdu(event.event_id, event, None), message


def _signed(checked: CheckedPdu, message: bytes, keys: Keys, now_ms: int) -> CheckedPdu:
    """Steps 2 and 3."""
    event = checked.event
    if event is None:
        return checked
    pdu, version = event.pdu, event.version
    try:
        for server in required_signers(pdu, version):
            verify_event(pdu, version, server, keys.get(server, {}), now_ms, message)
    except SignatureError as problem:
        return CheckedPdu(event.event_id, None, str(problem))
    if not content_hash_matches(pdu, version, is_checked=True):
        return CheckedPdu(event.event_id, event.redacted(), None)
    return checked
