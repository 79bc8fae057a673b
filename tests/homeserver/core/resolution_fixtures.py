"""What the tests of state resolution share."""

from __future__ import annotations

from typing import Any

from homeserver.core import state_res
from homeserver.core.event import Event
from homeserver.core.room_versions import RoomVersion
from homeserver.core.state_sets import Events
from homeserver.core.types import JsonObject, StateKey
from tests.support.events import START_TS, RoomBuilder

CREATE: StateKey = ("m.room.create", "")
POWER_LEVELS: StateKey = ("m.room.power_levels", "")
JOIN_RULES: StateKey = ("m.room.join_rules", "")
TOPIC: StateKey = ("m.room.topic", "")


def member(user: str) -> StateKey:
    return "m.room.member", user


def merged(*branches: RoomBuilder, **options: Any) -> dict[StateKey, Event]:
    """The resolution of the states of branches of one room, as events."""
    events = branches[0].events
    states = [branch.state_ids for branch in branches]
    resolved = state_res.resolve(states, events.get, branches[0].version, **options)
    return {key: events[event_id] for key, event_id in resolved.items()}


def loader(room: RoomBuilder, **options: Any) -> Events:
    return Events(room.events.get, **options)


def listed(room: RoomBuilder, users: dict[str, int]) -> dict[str, int]:
    """Users for a power-levels event, the creator among them where the version wants it."""
    return users if room.version.creators_privileged else {room.creator: 100, **users}


def quick_event(
    event_id: str,
    version: RoomVersion,
    key: StateKey,
    sender: str,
    content: JsonObject,
    auth: list[str],
    *,
    ts: int = START_TS,
    room_id: str | None = "!r:a.example",
) -> Event:
    """An event with an ID of one's own choice, without the cost of hashes."""
    pdu: JsonObject = {
        "type": key[0],
        "state_key": key[1],
        "sender": sender,
        "content": content,
        "origin_server_ts": ts,
        "depth": 1,
        "prev_events": [],
        "auth_events": auth,
        "hashes": {},
        "signatures": {},
    }
    if room_id is not None:
        pdu["room_id"] = room_id
    return Event.from_pdu(pdu, version, event_id)
