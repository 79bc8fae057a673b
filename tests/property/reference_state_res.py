"""State resolution 2 and 2.1 read word for word, without regard to cost.

What servers agree on beyond the text is marked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from homeserver.core.auth_rules import auth_types, check
from homeserver.core.event import Event
from homeserver.core.power_levels import PowerLevels
from homeserver.core.rejection import EventRejected
from homeserver.core.room_versions import StateRes
from homeserver.core.types import StateKey

_POWER_LEVELS = ("m.room.power_levels", "")
State = dict[StateKey, Event]


class Reference:
    """The algorithm over the events of one room."""

    def __init__(self, events: Mapping[str, Event], create: Event) -> None:
        self.events = events
        self.create = create
        self.version = create.version
        self.chains: dict[str, set[Event]] = {}

    def resolve(self, states: Sequence[State]) -> State:
        keys = {key for state in states for key in state}
        unconflicted = {
            key: states[0][key]
            for key in keys
            if all(key in state and state[key] == states[0].get(key) for state in states)
        }
        conflicted = {
            event for state in states for key, event in state.items() if key not in unconflicted
        }
        chains: list[set[Event]] = [
            # The events of a state count as part of their chains, by agreement.
            {part for event in state.values() for part in {event, *self.auth_chain(event)}}
            for state in states
        ]
        full = conflicted | (set.union(*chains) - chains[0].intersection(*chains))
        if self.version.state_res is StateRes.V2_1:
            full |= {
                event
                for start in conflicted
                for event in self.auth_chain(start)
                if self.auth_chain(event) & conflicted or event in conflicted
            }
        # 1.
        picked = {event for event in full if self.is_power_event(event)}
        while more := {
            part
            for event in picked
            # Step by step within the full conflicted set, by agreement.
            for part in self.auth_events(event)
            if part in full and part not in picked
        }:
            picked |= more
        # 2.
        base = {} if self.version.state_res is StateRes.V2_1 else dict(unconflicted)
        state = self.iterative_auth_checks(self.power_ordering(picked), base)
        # 3.
        others = self.mainline_ordering(full - picked, state.get(_POWER_LEVELS))
        # 4.
        state = self.iterative_auth_checks(others, state)
        # 5.
        return {**state, **unconflicted}

    def auth_events(self, event: Event) -> list[Event]:
        return [self.events[event_id] for event_id in event.auth_event_ids]

    def auth_chain(self, event: Event) -> set[Event]:
        if event.event_id not in self.chains:
            auth_events = self.auth_events(event)
            chains = [self.auth_chain(part) for part in auth_events]
            self.chains[event.event_id] = set(auth_events).union(*chains)
        return self.chains[event.event_id]

    def is_power_event(self, event: Event) -> bool:
        if event.state_key == "" and event.type in (
            "m.room.power_levels",
            "m.room.join_rules",
            "m.room.create",
        ):
            return True
        return (
            event.type == "m.room.member"
            and event.content.get("membership") in ("leave", "ban")
            and event.sender != event.state_key
        )

    def power_ordering(self, events: set[Event]) -> list[Event]:
        order: list[Event] = []
        while len(order) < len(events):
            possible = [
                event
                for event in events
                if event not in order
                and all(part in order for part in self.auth_events(event) if part in events)
            ]
            order.append(
                min(
                    possible,
                    key=lambda event: (
                        -self.sender_power(event),
                        event.origin_server_ts,
                        event.event_id,
                    ),
                )
            )
        return order

    def sender_power(self, event: Event) -> int:
        power = [part for part in self.auth_events(event) if part.key == _POWER_LEVELS]
        return PowerLevels.of(power[0] if power else None, self.create).user_level(event.sender)

    def power_levels_before(self, event: Event) -> list[Event]:
        power = [part for part in self.auth_events(event) if part.key == _POWER_LEVELS]
        return [power[0], *self.power_levels_before(power[0])] if power else []

    def mainline_ordering(self, events: Iterable[Event], power: Event | None) -> list[Event]:
        mainline = [] if power is None else [power, *self.power_levels_before(power)]

        def position(event: Event) -> float:
            for part in self.power_levels_before(event):
                if part in mainline:
                    return mainline.index(part)
            return float("inf")

        return sorted(
            events, key=lambda event: (-position(event), event.origin_server_ts, event.event_id)
        )

    def iterative_auth_checks(self, events: Iterable[Event], state: State) -> State:
        for event in events:
            needed = auth_types(
                event.type, event.sender, event.state_key, event.content, self.version
            )
            own = {part.key: part for part in self.auth_events(event)}
            used = {key: part for key, part in {**own, **state}.items() if key in needed}
            try:
                check(event, used, create=self.create)
            except EventRejected:
                continue
            state[event.key] = event
        return state
