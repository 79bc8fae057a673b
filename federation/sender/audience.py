"""Which servers get an event: those in the room just before or just after it, on plain data."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from homeserver.core import canonical
from homeserver.core.ids import InvalidIdentifier, ServerName, UserID, domain_of
from storage.outgoing import Move, OutgoingEvent

NOBODY: frozenset[str] = frozenset()


class Audience(NamedTuple):
    """The servers that an event is sent to; those `apart` may not be in the room any more."""

    servers: frozenset[str]
    apart: frozenset[str]


def audiences(
    events: Sequence[OutgoingEvent],
    joined_now: Mapping[int, Mapping[str, int]],
    moves: Sequence[Move],
    own_name: str,
) -> list[Audience]:
    """The audience of each event.

    Parameters: `joined_now` are the users of each server in each room now, `moves` who entered
    or left since the first of the events, the last first.
    """
    moves_of: dict[int, list[Move]] = defaultdict(list)
    for move in moves:
        moves_of[move.room_nid].append(move)
    places: dict[int, list[int]] = defaultdict(list)
    for place, event in enumerate(events):
        places[event.room_nid].append(place)
    found = [Audience(NOBODY, NOBODY)] * len(events)
    for room_nid, own in places.items():
        history = _History(joined_now.get(room_nid, {}), moves_of[room_nid])
        for place in reversed(own):
            found[place] = _audience(events[place], history.around(events[place].pos), own_name)
    return found


class _History:
    """The servers in a room, going back in time."""

    def __init__(self, joined: Mapping[str, int], moves: list[Move]) -> None:
        self._joined = dict(joined)
        self._moves = moves
        self._next = 0
        self._servers = frozenset(joined)

    def around(self, pos: int) -> frozenset[str]:
        """The servers before and after what happened at a position below the last one asked."""
        after = self._back_to(pos)
        return after | self._back_to(pos - 1)

    def _back_to(self, pos: int) -> frozenset[str]:
        changed = False
        while self._next < len(self._moves) and self._moves[self._next].pos > pos:
            move = self._moves[self._next]
            self._next += 1
            name = domain_of(move.user_id)
            self._joined[name] = self._joined.get(name, 0) + (-1 if move.entered else 1)
            changed = True
        if changed:
            self._servers = frozenset(name for name, count in self._joined.items() if count > 0)
        return self._servers


def _audience(event: OutgoingEvent, servers: frozenset[str], own_name: str) -> Audience:
    apart = NOBODY
    if event.type == "m.room.member" and event.state_key is not None:
        target = _server(event.state_key)
        if target is not None and target != own_name and _ends_membership(event):
            apart = frozenset((target,))
            servers |= apart
    # Who sent an event through this server has it.
    without = {own_name, domain_of(event.sender)}
    if servers & without:
        servers -= without
    return Audience(servers, apart & servers)


def _server(user_id: str) -> str | None:
    try:
        return str(ServerName.parse(UserID.parse(user_id).domain))
    except InvalidIdentifier:
        return None


def _ends_membership(event: OutgoingEvent) -> bool:
    content = canonical.parse(event.json).get("content")
    return isinstance(content, dict) and content.get("membership") in ("leave", "ban")
