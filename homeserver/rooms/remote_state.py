"""The state of a room in an answer to send_join.

Server-Server API, "Joining Rooms". What is badly signed is dropped, and what hangs on it by its
auth events; the join fails only where the create event or an event that allows the join is
missing then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import structlog

from federation.client.errors import BadAnswer
from federation.client.membership import JoinAnswer
from federation.client.pdus import CheckedPdu, PduChecker
from homeserver.core import auth_rules
from homeserver.core.event import Event
from homeserver.core.room_versions import RoomVersion
from homeserver.core.types import StateKey

_CREATE: StateKey = ("m.room.create", "")
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class JoinState:
    """The state before a join and its auth chain, checked; no event of one is in the other."""

    state: Sequence[Event]
    auth_chain: Sequence[Event]


async def read_join_state(
    checker: PduChecker, answer: JoinAnswer, join: Event, version: RoomVersion, server: str
) -> JoinState:
    """What a server says the state is that `join` came into.

    Raises:
        BadAnswer: there is no create event in it or one of another version, or the rules do not
            allow the join in this state.
    """
    state, chain = await _check_all(checker, answer, version, join.room_id, server)
    by_key = _by_key(state, server)
    create = by_key.get(_CREATE)
    if create is None:
        raise BadAnswer(server, "the state of the room has no create event")
    if create.content.get("room_version", "1") != version.identifier:
        raise BadAnswer(server, "the room is of another version than its template")
    named = {event.event_id: event for event in (*chain, *state)}
    good = complete(named)
    if create.event_id not in good:
        raise BadAnswer(server, "the create event names other events")
    missing = [name for name in join.auth_event_ids if name not in good]
    if missing:
        raise BadAnswer(server, f"an event is missing that allows the join: {missing[0]}")
    _require_allowed(join, create, by_key, good, server)
    in_state = {event.event_id for event in by_key.values()}
    return JoinState(
        [event for event in by_key.values() if event.event_id in good],
        [event for name, event in good.items() if name not in in_state],
    )


def complete(named: Mapping[str, Event]) -> dict[str, Event]:
    """Those of the events whose auth events are all among them, down to the create event.

    Auth events come first in the answer.
    """
    waiting = {name: len(set(event.auth_event_ids)) for name, event in named.items()}
    dependants: dict[str, list[str]] = {}
    for name, event in named.items():
        for auth_id in set(event.auth_event_ids):
            dependants.setdefault(auth_id, []).append(name)
    ready = [name for name, number in waiting.items() if number == 0]
    good: dict[str, Event] = {}
    while ready:
        name = ready.pop()
        good[name] = named[name]
        for dependant in dependants.get(name, ()):
            waiting[dependant] -= 1
            if waiting[dependant] == 0:
                ready.append(dependant)
    return good


async def _check_all(
    checker: PduChecker, answer: JoinAnswer, version: RoomVersion, room_id: str, server: str
) -> tuple[list[Event], list[Event]]:
    """The good events of the state and of the auth chain."""
    pdus, places = _unique([*answer.state, *answer.auth_chain])
    checked = await checker.check(pdus, version, room_id=room_id, is_new=False)
    _tell(checked, room_id, server)
    found = [checked[place].event for place in places]
    split = len(answer.state)
    return _present(found[:split]), _present(found[split:])


def _unique(pdus: Sequence[Any]) -> tuple[list[Any], list[int]]:
    """Equal PDUs once, as most servers send the state's events in the auth chain again; and for
    each of the given ones its place among those."""
    found: list[Any] = []
    known: dict[bytes, int] = {}
    places: list[int] = []
    for pdu in pdus:
        place = len(found)
        try:
            place = known.setdefault(orjson.dumps(pdu), place)
        except TypeError:
            # Integers beyond 64 bits: checked each time that they come.
            pass
        if place == len(found):
            found.append(pdu)
        places.append(place)
    return found, places


def _present(events: Iterable[Event | None]) -> list[Event]:
    return [event for event in events if event is not None]


def _tell(checked: Sequence[CheckedPdu], room_id: str, server: str) -> None:
    bad = [item for item in checked if item.event is None]
    if bad:
        _log.warning(
            "Events were dropped from the answer to a join",
            server=server,
            room_id=room_id,
            dropped=len(bad),
            first=bad[0].event_id,
            reason=bad[0].error,
        )


def _by_key(state: Sequence[Event], server: str) -> dict[StateKey, Event]:
    found: dict[StateKey, Event] = {}
    for event in state:
        if not event.is_state:
            raise BadAnswer(server, "an event in the state is no state event")
        known = found.setdefault(event.key, event)
        if known.event_id != event.event_id:
            raise BadAnswer(server, f"the state has two events of type {event.type}")
    return found


def _require_allowed(
    join: Event,
    create: Event,
    by_key: Mapping[StateKey, Event],
    good: Mapping[str, Event],
    server: str,
) -> None:
    # Members may be left out of the state; those that matter are among the auth events.
    auth = [good[name] for name in join.auth_event_ids]
    state = {**{event.key: event for event in auth if event.is_state}, **by_key}
    try:
        auth_rules.check_auth_events(join, auth, lambda name: False, create)
        auth_rules.check(join, state, create=create)
    except auth_rules.EventRejected as refusal:
        raise BadAnswer(server, f"the join is not allowed: {refusal.reason}") from None
