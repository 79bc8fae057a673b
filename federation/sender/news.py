"""Reading from the log what is new for other servers: once for all of them, or for one that is
behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from federation.sender import edus
from federation.sender.audience import NOBODY, audiences
from federation.sender.edus import PlacedEdu
from homeserver.core.ids import domain_of
from storage import (
    cross_signing,
    destinations,
    device_keys,
    device_updates,
    outgoing,
    outgoing_to_device,
)
from storage.device_updates import SIGNING_KEYS, Update
from storage.outgoing import OutgoingEvent
from storage.transaction import Transaction

PAGE = 500
"""Events, and receipts, of one reading."""
MAX_STICKY = 400
"""Sticky events of a room for a server that enters it: fewer than its queue holds."""


class Reading(NamedTuple):
    """What is asked for: the log in `after < pos <= upto`, for `server` or for everybody."""

    after: int
    upto: int
    server: str | None = None


class Dispatch(NamedTuple):
    """A PDU or an EDU, and the servers that get it."""

    pos: int
    is_edu: bool
    body: bytes
    servers: frozenset[str]
    apart: frozenset[str]


class News(NamedTuple):
    """What was found, in order, up to `upto`."""

    upto: int
    dispatches: list[Dispatch]
    to_device: list[str]
    """Servers for whose devices there are messages."""


class NewsReader:
    """Functions of transactions."""

    def __init__(self, server_name: str) -> None:
        self._server_name = server_name
        self._suffix = ":" + server_name

    def read(self, txn: Transaction, reading: Reading) -> News:
        """What there is, possibly only to a position before `reading.upto`."""
        after, upto, server = reading
        found = outgoing.events(txn, after, upto, PAGE, server)
        if len(found) == PAGE:
            upto = found[-1].pos
        others = outgoing.others(txn, after, upto)
        receipts = outgoing.receipts(txn, after, upto, PAGE, server) if others.receipts else []
        if len(receipts) == PAGE:
            upto = receipts[-1].pos
            found = [event for event in found if event.pos <= upto]
        if server is not None:
            apart = destinations.events_for(txn, server, after, upto)
            own = {event.pos for event in found}
            found += outgoing.events_at(txn, [pos for pos in apart if pos not in own])
            found.sort()
        receipts = [each for each in receipts if each.user_id.endswith(self._suffix)]
        placed = edus.receipts(receipts)
        if others.device_updates:
            placed += self._device_edus(txn, Reading(after, upto, server))
        rooms = {event.room_nid for event in found}
        rooms |= {each.room_nid for each in placed if each.room_nid is not None}
        joined = outgoing.servers(txn, rooms)
        dispatches = self._pdus(txn, found, joined, after)
        dispatches += self._edus(txn, placed, joined, server)
        if others.entered:
            dispatches += self._sticky(txn, after, upto)
        if server is not None:
            dispatches = [each for each in dispatches if server in each.servers]
        dispatches.sort(key=lambda each: each.pos)
        waiting = []
        if server is None and others.to_device:
            waiting = outgoing_to_device.destinations(txn, after, upto)
        return News(upto, dispatches, waiting)

    def newest(self, txn: Transaction, reading: Reading) -> tuple[list[int], list[Dispatch]]:
        """For a server that was away for long: the positions of the newest event in each room
        and of those that are sticky, the newest first, and what it has to know of devices."""
        after, upto, server = reading
        assert server is not None
        positions = set(outgoing.newest(txn, server, after, upto))
        positions.update(destinations.events_for(txn, server, after, upto))
        rooms = outgoing.rooms_of(txn, server)
        stuck = outgoing.sticky(txn, self._suffix, rooms, upto)
        positions.update(event.pos for event in stuck if event.pos > after)
        placed = self._device_edus(txn, reading)
        found = self._edus(txn, placed, {}, server)
        return sorted(positions, reverse=True), [each for each in found if server in each.servers]

    def _pdus(
        self,
        txn: Transaction,
        found: Sequence[OutgoingEvent],
        joined: Mapping[int, Mapping[str, int]],
        after: int,
    ) -> list[Dispatch]:
        if not found:
            return []
        moves = outgoing.moves(txn, {event.room_nid for event in found}, after)
        who = audiences(found, joined, moves, self._server_name)
        return [
            Dispatch(event.pos, False, event.json.encode(), each.servers, each.apart)
            for event, each in zip(found, who, strict=True)
            if each.servers
        ]

    def _sticky(self, txn: Transaction, after: int, upto: int) -> list[Dispatch]:
        """What is sticky in a room, for servers that enter it (MSC4354): in the place of the
        first of their users' joins."""
        rooms = outgoing.sticky_rooms(txn, after, upto)
        joined = outgoing.servers(txn, rooms)
        moves = [move for move in outgoing.moves(txn, rooms, after) if move.room_nid in rooms]
        found = []
        for room_nid, counts in joined.items():
            here = [move for move in moves if move.room_nid == room_nid]
            for name, count in counts.items():
                own = [move for move in here if domain_of(move.user_id) == name]
                before = count - sum(1 if move.entered else -1 for move in own)
                first = min((move.pos for move in own if move.entered), default=upto + 1)
                if before > 0 or first > upto:
                    continue
                for event in outgoing.sticky(txn, self._suffix, [room_nid], first)[-MAX_STICKY:]:
                    body, to = event.json.encode(), frozenset((name,))
                    found.append(Dispatch(first, False, body, to, NOBODY))
        return found

    def _edus(
        self,
        txn: Transaction,
        placed: Sequence[PlacedEdu],
        joined: Mapping[int, Mapping[str, int]],
        server: str | None,
    ) -> list[Dispatch]:
        users = {each.user_id for each in placed if each.user_id is not None}
        around = outgoing.servers_around(txn, users, server) if users else {}
        found = []
        for each in placed:
            if each.room_nid is not None:
                servers = frozenset(joined[each.room_nid])
            else:
                servers = frozenset(around.get(each.user_id or "", ()))
            if servers:
                found.append(Dispatch(each.pos, True, each.body, servers, NOBODY))
        return found

    def _device_edus(self, txn: Transaction, reading: Reading) -> list[PlacedEdu]:
        after, upto, server = reading
        updates: Sequence[Update] = device_updates.between(txn, after, upto)
        if server is not None and updates:
            around = outgoing.servers_around(txn, {each.user_id for each in updates}, server)
            updates = [each for each in updates if around[each.user_id]]
        if not updates:
            return []
        changed = {
            (each.user_id, each.device_id) for each in updates if each.device_id != SIGNING_KEYS
        }
        before = device_updates.last_before(txn, {user_id for user_id, _ in changed}, after)
        found = edus.device_lists(updates, device_keys.for_update(txn, changed), before)
        signers = {each.user_id for each in updates if each.device_id == SIGNING_KEYS}
        contents = {user_id: cross_signing.for_update(txn, user_id) for user_id in signers}
        # A user whose keys are gone has nothing but the user ID there.
        return found + edus.signing_keys(
            updates, {user_id: content for user_id, content in contents.items() if len(content) > 1}
        )
