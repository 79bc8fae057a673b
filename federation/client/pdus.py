"""The first checks of events that other servers send.

Server-Server API, "Checks performed on receipt of a PDU", steps 1 to 3: the event is valid, its
signatures are right, its content hash is right (or else it is redacted before it goes on). Many
events are checked together: their keys are looked for in one go, and their signatures are
verified in a thread, which leaves the reactor to others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, NamedTuple, Protocol, TypeVar

from msgspec import Raw
from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.internet.interfaces import IReactorTime

from federation.client.keyring import ServerKey, Signatures, signatures_by_signer, want_keys
from federation.client.plain_messages import read_message
from federation.client.plain_pdus import read_plain
from homeserver.core import canonical
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
    encode_checked,
    event_id_for,
    verify_signatures,
)
from homeserver.core.types import JsonObject
from homeserver.semaphore import Semaphore
from homeserver.workers import CALCULATING, CORES

T = TypeVar("T")

INLINE = 2
"""So few events are checked at once, without a thread."""

CHUNK = 200
"""Events that one thread checks before it lets others have their turn."""

Keys = Mapping[str, Mapping[str, KnownKey]]
"""By server and key ID."""

_NO_KEYS: Mapping[str, KnownKey] = {}

Count = Callable[[str, int], object]
"""Told how many events went which way through step 1: of at most `CHUNK` together `message` (see
`federation.client.plain_messages`) or `few`; of more, `plain` (see `federation.client.plain_pdus`)
or `general`."""


def _uncounted(way: str, events: int) -> None:
    pass


class EventKeys(Protocol):
    """What is needed of `federation.client.keyring.Keyring`."""

    async def keys_for(self, wanted: Mapping[ServerKey, int]) -> dict[str, dict[str, KnownKey]]: ...

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


class _Shaped(NamedTuple):
    """A PDU after step 1: `message` is what is signed of it, `signatures` are those that matter,
    `is_whole` says whether its content hash is right, `is_plain` whether it was read in one go.
    With all that nobody needs the PDU again."""

    checked: CheckedPdu
    message: bytes = b""
    signatures: Signatures = ()
    is_whole: bool = True
    is_plain: bool = False


class PduChecker:
    """Checks events of other servers; see the module.

    Parameters: `keys` finds the keys; `reactor` to come back to; `count` is told of events.
    """

    def __init__(self, keys: EventKeys, reactor: Any, count: Count = _uncounted) -> None:
        self._keys = keys
        self._reactor = reactor
        self._clock: IReactorTime = reactor
        self._count = count
        # Checking signatures is what threads can do together.
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

        Parameters: `pdus`, JSON values, or their text as `msgspec.Raw`; `room_id`, the only room
        that events may belong to, if given; `is_new`, False for those that this server asked for,
        which may name more events than new ones may.

        Raises `canonical.NotJSON` for a text.
        """
        shape = partial(_shape, version=version, room_id=room_id, is_new=is_new)
        if len(pdus) <= CHUNK:
            pdus = [canonical.parse(bytes(p)) if type(p) is Raw else p for p in pdus]
            # What may have no form of an event makes nobody ask others for keys. But if all keys
            # are known, one turn in a thread does.
            if all(map(_names_its_signers, pdus)):
                at_hand = self._keys.keys_at_hand(pdus, version)
                if at_hand is not None:
                    return await self._at_once(pdus, shape, at_hand)
        parts = await self._run(_chunks(pdus), partial(_shape_all, shape))
        wanted: dict[ServerKey, int] = {}
        shaped = [part for part, _ in parts]
        self._tell(len(pdus), chain.from_iterable(shaped))
        for _, of_part in parts:
            for key, minimum in of_part.items():
                wanted[key] = max(wanted.get(key, 0), minimum)
        if any(each.checked.event is not None for part in shaped for each in part):
            keys = await self._keys.keys_for(wanted)
            now_ms = int(self._clock.seconds() * 1000)
            done = await self._run(shaped, partial(_sign_all, keys=keys, now_ms=now_ms))
        else:
            done = [[each.checked for each in part] for part in shaped]
        return list(chain.from_iterable(done))

    async def _at_once(
        self, pdus: Sequence[Any], shape: Callable[[Any], _Shaped], keys: Keys
    ) -> list[CheckedPdu]:
        now_ms = int(self._clock.seconds() * 1000)

        def work(part: Sequence[Any]) -> tuple[list[_Shaped], list[CheckedPdu]]:
            shaped = [shape(pdu) for pdu in part]
            return shaped, _sign_all(shaped, keys, now_ms)

        [(shaped, done)] = await self._run([pdus], work)
        self._tell(len(pdus), shaped)
        return done

    def _tell(self, count: int, shaped: Iterable[_Shaped]) -> None:
        plain = sum(each.is_plain for each in shaped)
        ways = ("plain", "general") if count > CHUNK else ("message", "few")
        for way, events in zip(ways, (plain, count - plain), strict=True):
            if events:
                self._count(way, events)

    async def _run(
        self, parts: Sequence[Sequence[Any]], work: Callable[[Sequence[Any]], T]
    ) -> list[T]:
        if len(parts) > 1:
            # Those who have many take turns with each other, and leave threads for those with few.
            turns = [self._turns.run(self._in_thread, work, part) for part in parts]
            try:
                return await gatherResults(turns, consumeErrors=True)
            except FirstError as first:
                first.subFailure.raiseException()
        return [
            work(part) if len(part) <= INLINE else await self._in_thread(work, part)
            for part in parts
        ]

    def _in_thread(self, work: Callable[[Sequence[Any]], T], items: Sequence[Any]) -> Deferred[T]:
        return CALCULATING.run(self._reactor, work, items)


def _names_its_signers(pdu: Any) -> bool:
    """Whether it can be told who must have signed an event that was not looked at yet."""
    return (
        type(pdu) is dict
        and type(pdu.get("sender")) is str
        and type(pdu.get("event_id", "")) is str
    )


def _chunks(pdus: Sequence[Any]) -> list[Sequence[Any]]:
    return [pdus[start : start + CHUNK] for start in range(0, len(pdus), CHUNK)]


def _shape_all(
    shape: Callable[[Any], _Shaped], pdus: Sequence[Any]
) -> tuple[list[_Shaped], dict[ServerKey, int]]:
    """Step 1 of some events, and the keys that the next steps need. Raises `NotJSON`."""
    done = [shape(pdu) for pdu in pdus]
    wanted: dict[ServerKey, int] = {}
    for each in done:
        event = each.checked.event
        if event is not None:
            want_keys(wanted, each.signatures, event.origin_server_ts, event.version)
    return done, wanted


def _shape(pdu: Any, version: RoomVersion, room_id: str | None, is_new: bool) -> _Shaped:
    """Step 1, the event's ID, and what the next steps look at. Raises `NotJSON`."""
    is_text, is_plain, encoded = type(pdu) is Raw, False, None
    if is_text:
        written = bytes(pdu)
        read = read_plain(written, version, room_id, is_new=is_new)
        if read is not None:
            event, message, signatures = read
            checked = CheckedPdu(event.event_id, event, None)
            return _Shaped(checked, message, signatures, is_plain=True)
        pdu, is_plain = canonical.parse_plain(written)
    elif type(pdu) is dict:
        read = read_message(pdu, version, is_new=is_new)
        if read is not None and room_id in (None, read.event.room_id):
            event, message, signatures = read
            checked = CheckedPdu(event.event_id, event, None)
            return _Shaped(checked, message, signatures, is_plain=True)
    try:
        if is_plain and version.strict_canonical_json and type(pdu) is dict:
            encoded = encode_checked(pdu, version)
        encoded = check_pdu(pdu, version, is_new=is_new, encoded=encoded)
        signed, text = pdu, encoded or b""
        if "unsigned" in pdu:
            # Nobody signs what is in `unsigned`, and nothing of it is ours to repeat.
            signed = {key: value for key, value in pdu.items() if key != "unsigned"}
            text = encode_checked(signed, version) if is_text and text else b""
        # A copy has no more memory than it needs, as the encoder's has.
        message = bytes(memoryview(checked_message(signed, version)))
        event_id = event_id_for(signed, version, message)
        text = bytes(memoryview(text))
        event = Event.checked(signed, version, event_id, text, keep=not is_text)
    except (EventFormatError, CanonicalJSONError) as problem:
        return _Shaped(CheckedPdu(None, None, str(problem)))
    except RecursionError:
        return _Shaped(CheckedPdu(None, None, "The event is nested too deeply."))
    try:
        check_received_sizes(pdu, version, encoded)
    except EventTooLarge as problem:
        return _Shaped(CheckedPdu(event.event_id, None, str(problem)))
    if room_id is not None and event.room_id != room_id:
        return _Shaped(CheckedPdu(event.event_id, None, "The event belongs to another room."))
    return _Shaped(
        CheckedPdu(event.event_id, event, None),
        message,
        signatures_by_signer(pdu, version),
        content_hash_matches(signed, version, is_checked=True),
    )


def _sign_all(shaped: Sequence[_Shaped], keys: Keys, now_ms: int) -> list[CheckedPdu]:
    return [_signed(each, keys, now_ms) for each in shaped]


def _signed(shaped: _Shaped, keys: Keys, now_ms: int) -> CheckedPdu:
    """Steps 2 and 3."""
    checked, message, signatures, is_whole, _ = shaped
    event = checked.event
    if event is None:
        return checked
    version, sent = event.version, event.origin_server_ts
    try:
        for server, by_key in signatures:
            known = keys.get(server, _NO_KEYS)
            verify_signatures(by_key, message, version, server, known, sent, now_ms)
    except SignatureError as problem:
        return CheckedPdu(event.event_id, None, str(problem))
    return checked if is_whole else CheckedPdu(event.event_id, event.redacted(), None)
