"""A room whose two branches differ, written to a file for both resolvers."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.events import RoomBuilder

_SERVERS = 50
_MODERATORS = 5


def branches(version: str, members: int, conflicts: int) -> tuple[RoomBuilder, RoomBuilder]:
    """A room of so many members, and a fork of it: so many of them differ, and the power levels."""
    creator = "@creator:s0.example"
    moderators = {f"@moderator{number}:s0.example": 50 for number in range(_MODERATORS)}
    room = RoomBuilder.started(version, creator=creator, members=moderators, users=moderators)
    names = [f"@user{number:05}:s{number % _SERVERS}.example" for number in range(members)]
    for name in names:
        room.join(name, {"displayname": name[1:10]})
    both = (room, room.fork())
    listed = dict(moderators)
    if not room.version.creators_privileged:
        listed[creator] = 100
    for number, branch in enumerate(both):
        for change in range(2 + number):
            user = f"@user{change:05}:s{change % _SERVERS}.example"
            branch.power_levels(users={**listed, user: 10 + number})
        for name in names[: conflicts - 1]:
            branch.join(name, {"displayname": f"{name[1:10]} of branch {number}"})
    return both


def write(path: Path, both: tuple[RoomBuilder, RoomBuilder]) -> None:
    """Write two branches into a file.

    The file is JSON: `room_id`, `version`, `states` as lists of (type, state key, event ID), and
    `events` by ID in the form in which servers exchange them.
    """
    room = both[0]
    document = {
        "room_id": room.room_id,
        "version": room.version.identifier,
        "states": [
            [[*key, event.event_id] for key, event in branch.state.items()] for branch in both
        ],
        "events": {event_id: event.pdu for event_id, event in room.events.items()},
    }
    path.write_text(json.dumps(document), "utf-8")
