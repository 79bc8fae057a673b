"""A room as a scripted remote server sees it: `PeerRoom`. It authorises nothing."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from homeserver.core import state_res
from homeserver.core.auth_rules import auth_types
from homeserver.core.event import Event
from homeserver.core.ids import domain_of
from homeserver.core.room_versions import ROOM_VERSIONS, RoomVersion
from homeserver.core.signing import SigningKey, event_id_for, hash_and_sign_event
from homeserver.core.types import JsonObject, StateKey

StateIds = dict[StateKey, str]
_numbers = itertools.count(1)


class PeerRoom:
    """Events by ID, the heads, and the state after each event whose place is known.

    `server` and `key` sign what is made here. Nothing is authorised: what is made or added is
    taken as it is, so that a test can let the room go where no honest server would.
    """

    def __init__(self, server: str, key: SigningKey, version: str, room_id: str) -> None:
        self.server = server
        self.key = key
        self.version: RoomVersion = ROOM_VERSIONS[version]
        self.room_id = room_id
        self.events: dict[str, Event] = {}
        self.heads: list[str] = []
        self.states: dict[str, StateIds] = {}
        self.clock_offset_ms = 0
        """Added to the time of the events made here."""

    @classmethod
    def created(
        cls,
        server: str,
        key: SigningKey,
        version: str,
        creator: str,
        *,
        join_rule: str = "public",
        users: Mapping[str, int] | None = None,
        power: JsonObject | None = None,
    ) -> PeerRoom:
        """A new room: create, the creator's join, power levels, join rules."""
        room = cls(server, key, version, f"!peer{next(_numbers)}:{server}")
        content: JsonObject = {"room_version": version}
        if not room.version.implicit_room_creator:
            content["creator"] = creator
        create = room.grow("m.room.create", content, creator, "")
        room.room_id = create.room_id
        room.grow("m.room.member", {"membership": "join"}, creator, creator)
        listed = {} if room.version.creators_privileged else {creator: 100}
        levels = {"users": {**listed, **(users or {})}, **(power or {})}
        room.grow("m.room.power_levels", levels, creator, "")
        room.grow("m.room.join_rules", {"join_rule": join_rule}, creator, "")
        return room

    # Making

    def make(
        self,
        event_type: str,
        content: JsonObject,
        sender: str,
        state_key: str | None = None,
        *,
        prev: Iterable[Event | str] | None = None,
        auth: Iterable[Event | str] | None = None,
        state: StateIds | None = None,
        depth: int | None = None,
        ts: int | None = None,
        key: SigningKey | None = None,
        signer: str | None = None,
        **top_level: Any,
    ) -> Event:
        """A signed event, which is not added.

        `prev` and `auth` default to the heads and to the selection from the state before the
        event; `state` replaces that state; `top_level` sets further keys before the event is
        hashed and signed, those given as None are removed.
        """
        prev_ids = list(self.heads) if prev is None else _ids(prev)
        if auth is None:
            before = self.state_before(prev_ids) if state is None else state
            wanted = auth_types(event_type, sender, state_key, content, self.version)
            auth = [before[each] for each in sorted(wanted) if each in before]
        if depth is None:
            depth = 1 + max((self.events[i].depth for i in prev_ids if i in self.events), default=0)
        pdu: JsonObject = {
            "type": event_type,
            "room_id": self.room_id,
            "sender": sender,
            "content": content,
            "origin": self.server,
            "origin_server_ts": self.now() if ts is None else ts,
            "depth": depth,
            "prev_events": self.references(prev_ids),
            "auth_events": self.references(_ids(auth)),
        }
        if state_key is not None:
            pdu["state_key"] = state_key
        if self.version.event_format == 1:
            pdu["event_id"] = f"$peer{next(_numbers)}:{self.server}"
        if self.version.room_id_is_create_hash and event_type == "m.room.create":
            del pdu["room_id"]
        for name, value in top_level.items():
            pdu[name] = value
            if value is None:
                del pdu[name]
        return self.signed(pdu, key=key, signer=signer)

    def signed(
        self, pdu: JsonObject, *, key: SigningKey | None = None, signer: str | None = None
    ) -> Event:
        """Hash and sign a PDU, anew: other signatures are dropped."""
        pdu = {name: value for name, value in pdu.items() if name not in ("hashes", "signatures")}
        hash_and_sign_event(pdu, self.version, signer or self.server, key or self.key)
        return Event.from_pdu(pdu, self.version, event_id_for(pdu, self.version))

    def grow(self, *args: Any, **options: Any) -> Event:
        """As `make`, and added."""
        event = self.make(*args, **options)
        self.add(event)
        return event

    def message(self, sender: str, body: str = "hello", **options: Any) -> Event:
        """A text message, added."""
        return self.grow("m.room.message", {"msgtype": "m.text", "body": body}, sender, **options)

    def references(self, event_ids: Iterable[str]) -> list[Any]:
        """Event IDs as this version writes them into `prev_events` and `auth_events`."""
        if self.version.event_format == 1:
            return [[event_id, {"sha256": "AAAA"}] for event_id in event_ids]
        return list(event_ids)

    def now(self) -> int:
        return int(time.time() * 1000) + self.clock_offset_ms

    # The model

    def event_of(self, pdu: JsonObject) -> Event:
        """A PDU of this room as an event."""
        return Event.from_pdu(pdu, self.version, event_id_for(pdu, self.version))

    def add(self, event: Event) -> None:
        """Let the room go on after an event; known ones are passed over."""
        if event.event_id in self.states:
            return
        self.events[event.event_id] = event
        after = self.state_before(event.prev_event_ids)
        if event.is_state:
            after[event.key] = event.event_id
        self.states[event.event_id] = after
        named = set(event.prev_event_ids)
        self.heads = [head for head in self.heads if head not in named] + [event.event_id]

    def adopt(self, join: Event, state: Sequence[Event], auth_chain: Sequence[Event]) -> None:
        """Enter at `join`, with the state before it."""
        for event in [*auth_chain, *state]:
            self.events[event.event_id] = event
        self.events[join.event_id] = join
        self.states[join.event_id] = {event.key: event.event_id for event in state}
        self.states[join.event_id][join.key] = join.event_id
        self.heads = [join.event_id]

    def state_before(self, prev_ids: Sequence[str]) -> StateIds:
        """The resolved state after these events; those not known are passed over."""
        sets = [self.states[each] for each in prev_ids if each in self.states]
        if not sets:
            return {}
        if len(sets) == 1:
            return dict(sets[0])
        return dict(state_res.resolve(sets, self.events.get, self.version))

    @property
    def state(self) -> StateIds:
        """The current state as event IDs."""
        return self.state_before(self.heads)

    def state_event(self, event_type: str, state_key: str = "") -> Event | None:
        """An event of the current state."""
        event_id = self.state.get((event_type, state_key))
        return None if event_id is None else self.events[event_id]

    def auth_chain(self, event_ids: Iterable[str]) -> list[Event]:
        """The auth events of events, and theirs."""
        found: dict[str, Event] = {}
        waiting = [i for e in event_ids if e in self.events for i in self.events[e].auth_event_ids]
        while waiting:
            event_id = waiting.pop()
            event = self.events.get(event_id)
            if event is not None and event_id not in found:
                found[event_id] = event
                waiting += event.auth_event_ids
        return list(found.values())

    def history(self, event_ids: Iterable[str], limit: int) -> list[Event]:
        """These events and the ones before them, the newest first."""
        found: dict[str, Event] = {}
        waiting = list(event_ids)
        while waiting and len(found) < limit:
            waiting.sort(key=lambda each: self.events[each].depth if each in self.events else 0)
            event_id = waiting.pop()
            if event_id in self.states and event_id not in found:
                found[event_id] = self.events[event_id]
                waiting += self.events[event_id].prev_event_ids
        return list(found.values())

    def missing(self, earliest: Sequence[str], latest: Sequence[str], limit: int) -> list[Event]:
        """What get_missing_events answers: between the two, without them, the oldest first."""
        known = {*earliest, *latest}
        found: dict[str, Event] = {}
        waiting = [i for e in latest if e in self.events for i in self.events[e].prev_event_ids]
        while waiting and len(found) < limit:
            event_id = waiting.pop(0)
            event = self.events.get(event_id)
            if event is None or event_id in known or event_id in found:
                continue
            found[event_id] = event
            waiting += event.prev_event_ids
        return sorted(found.values(), key=lambda event: event.depth)

    def members(self, membership: str = "join") -> list[str]:
        """Users by their membership in the current state."""
        return [
            key
            for (kind, key), event_id in self.state.items()
            if kind == "m.room.member" and self.events[event_id].membership == membership
        ]

    def servers(self) -> set[str]:
        """The servers of joined users."""
        return {domain_of(user) for user in self.members()}


def _ids(events: Iterable[Event | str]) -> list[str]:
    return [event.event_id if isinstance(event, Event) else event for event in events]
