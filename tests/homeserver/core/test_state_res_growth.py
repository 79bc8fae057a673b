"""How the work of state resolution grows with the number of conflicts.

Counted are events fetched, authorisation checks, comparisons of event IDs (all events of a room
here have the same time, so that ordering gets down to these), and calls of any function.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from twisted.trial.unittest import TestCase

from homeserver.core import state_res, state_res_v2
from homeserver.core.auth_rules import check
from homeserver.core.event import Event
from homeserver.core.room_versions import ROOM_VERSIONS, RoomVersion
from homeserver.core.types import JsonObject, StateKey
from tests.homeserver.core.resolution_fixtures import (
    CREATE,
    JOIN_RULES,
    POWER_LEVELS,
    TOPIC,
    member,
    quick_event,
)
from tests.support.events import ALICE, BOB

SIZES = (1000, 2000, 4000, 10_000)
State = dict[StateKey, str]


class CountedId(str):
    """An event ID that counts how often it is put in order."""

    compared = 0
    __slots__ = ()

    def __lt__(self, other: str) -> bool:
        CountedId.compared += 1
        return str.__lt__(self, other)


@dataclass
class Room:
    """A room of which the events are made without being checked or hashed."""

    version: RoomVersion
    events: dict[str, Event] = field(default_factory=dict)
    state: State = field(default_factory=dict)

    def add(self, state: State, key: StateKey, sender: str, content: JsonObject) -> str:
        """Add an event after a state, with the auth events for it that most events have."""
        needed = {CREATE, POWER_LEVELS, member(sender)}
        if key[0] == "m.room.member":
            needed |= {key, JOIN_RULES}
        if self.version.room_id_is_create_hash:
            needed.discard(CREATE)
        # Numbers backwards, so that the order of IDs is not that of creation.
        event_id = CountedId(f"${10**6 - len(self.events)}")
        room_id = None if self.version.room_id_is_create_hash and key == CREATE else self.room_id
        self.events[event_id] = quick_event(
            event_id,
            self.version,
            key,
            sender,
            content,
            [state[other] for other in needed if other in state],
            room_id=room_id,
        )
        state[key] = event_id
        return event_id

    @property
    def room_id(self) -> str:
        return f"!{10**6}" if self.version.room_id_is_create_hash else "!r:a.example"


def started(version: str, users: int = 0) -> Room:
    room = Room(ROOM_VERSIONS[version])
    room.add(room.state, CREATE, ALICE, {"room_version": version, "creator": ALICE})
    room.add(room.state, member(ALICE), ALICE, {"membership": "join"})
    listed = {BOB: 50} if room.version.creators_privileged else {ALICE: 100, BOB: 50}
    room.add(room.state, POWER_LEVELS, ALICE, {"users": listed})
    room.add(room.state, JOIN_RULES, ALICE, {"join_rule": "public"})
    for user in (BOB, *(f"@u{number}:b.example" for number in range(users))):
        room.add(room.state, member(user), user, {"membership": "join"})
    return room


def profiles(version: str, number: int) -> tuple[Room, list[State]]:
    """Everybody changes their profile on both sides."""
    room = started(version, number // 2)
    states = [dict(room.state), dict(room.state)]
    for state, name in zip(states, "ab", strict=True):
        for user in range(number // 2):
            user_id = f"@u{user}:b.example"
            content = {"membership": "join", "displayname": name}
            room.add(state, member(user_id), user_id, content)
    return room, states


def kicks(version: str, number: int) -> tuple[Room, list[State]]:
    """Bob and Alice kick everybody, each on their side, some of whom change their profile."""
    room = started(version, number // 2)
    states = [dict(room.state), dict(room.state)]
    for state, sender in zip(states, (ALICE, BOB), strict=True):
        for user in range(number // 2):
            user_id = f"@u{user}:b.example"
            if user % 10 == 0:
                room.add(state, member(user_id), user_id, {"membership": "join", "n": sender})
            room.add(state, member(user_id), sender, {"membership": "leave"})
    return room, states


def power_chains(version: str, number: int) -> tuple[Room, list[State]]:
    """Each side changes the power levels again and again, citing the previous ones."""
    room = started(version)
    states = [dict(room.state), dict(room.state)]
    base = room.events[room.state[POWER_LEVELS]].content
    for state in states:
        for step in range(number // 2):
            room.add(state, POWER_LEVELS, ALICE, {**base, "events": {"x": step % 50}})
    return room, states


def mainlines(version: str, number: int) -> tuple[Room, list[State]]:
    """As `power_chains`, and something else is set under each of the power levels."""
    room = started(version)
    states = [dict(room.state), dict(room.state)]
    base = room.events[room.state[POWER_LEVELS]].content
    for state in states:
        for step in range(number // 4):
            room.add(state, POWER_LEVELS, ALICE, {**base, "events": {"x": step % 50}})
            room.add(state, ("org.example", str(step)), BOB, {"n": step})
    return room, states


def long_histories(version: str, number: int) -> tuple[Room, list[State]]:
    """Two topics by somebody whose many profile changes make long auth chains."""
    room = started(version)
    states = [dict(room.state), dict(room.state)]
    for state in states:
        for step in range(number // 2):
            content = {"membership": "join", "displayname": str(step)}
            room.add(state, member(BOB), BOB, content)
        room.add(state, TOPIC, BOB, {"topic": "t"})
    return room, states


@dataclass
class Work:
    """What one resolution took."""

    fetched: int = 0
    checked: int = 0
    compared: int = 0
    called: int = 0


class Growth(TestCase):
    def measure(self, room: Room, states: list[State], calls: bool = False) -> Work:
        """Resolve the states, and count; `calls` too if wanted, which is slow."""
        work = Work()

        def get_event(event_id: str) -> Event | None:
            work.fetched += 1
            return room.events.get(event_id)

        def get_events(event_ids: Collection[str]) -> dict[str, Event]:
            work.fetched += len(event_ids)
            return {name: room.events[name] for name in event_ids if name in room.events}

        def counted_check(*args: Any, **options: Any) -> None:
            work.checked += 1
            check(*args, **options)

        def profile(frame: object, what: str, argument: object) -> None:
            work.called += what in ("call", "c_call")

        self.patch(state_res_v2, "check", counted_check)
        CountedId.compared = 0
        sys.setprofile(profile if calls else None)
        try:
            result = state_res.resolve(states, get_event, room.version, get_events=get_events)
        finally:
            sys.setprofile(None)
        work.compared = CountedId.compared
        self.assertEqual(result.keys(), states[0].keys())
        return work

    def assert_growth(self, build: Callable[[str, int], tuple[Room, list[State]]]) -> None:
        for version in ("11", "12"):
            called = {}
            for number in SIZES:
                count_calls = version == "12" and number in (SIZES[0], SIZES[-1])
                work = self.measure(*build(version, number), calls=count_calls)
                self.assertLessEqual(work.fetched, 3 * number + 100)
                self.assertLessEqual(work.checked, 2 * number + 100)
                self.assertLessEqual(work.compared, 3 * number * math.log2(number))
                called[number] = work.called / (number * math.log2(number))
            # Per event and level of a sort, the largest takes no more than the smallest did.
            self.assertLessEqual(called[SIZES[-1]], 1.1 * called[SIZES[0]])

    def test_profiles(self) -> None:
        """Shows RES-10. 10,000 conflicting members take no more than n log n."""
        self.assert_growth(profiles)

    def test_kicks(self) -> None:
        """Shows RES-10. 10,000 conflicting power events take no more than n log n."""
        self.assert_growth(kicks)

    def test_power_chains(self) -> None:
        """Shows RES-10. 10,000 power levels in two chains take no more than n log n."""
        self.assert_growth(power_chains)

    def test_mainlines(self) -> None:
        """Shows RES-10. 5,000 events on a mainline of 5,000 take no more than n log n."""
        self.assert_growth(mainlines)

    def test_long_histories(self) -> None:
        """Shows RES-10. Two auth chains of 5,000 events take no more than n log n."""
        self.assert_growth(long_histories)

    def test_few_conflicts_in_much_state(self) -> None:
        """Shows RES-10. A race among 10,000 members looks at the race, not at the members."""
        for version in ("11", "12"):
            room = started(version, 10_000)
            states = [dict(room.state), dict(room.state)]
            for state in states:
                room.add(state, TOPIC, BOB, {"topic": "t"})
            work = self.measure(room, states)
            self.assertLessEqual(work.fetched, 20)
            self.assertLessEqual(work.checked, 2)
