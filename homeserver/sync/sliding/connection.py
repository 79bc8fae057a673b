"""What a connection was sent: by position, in a table that all processes share (MSC4186).

1. A position never changes. An answer that changes what the client knows of gets a new one; an
   answer with only what is new in rooms that the client follows does not, because the time up to
   which they are known is in the token.
2. The client may ask again from the last position that it has, because an answer was lost: so
   that one is kept, with the newest answers to it. Older ones, and those that the client did not
   come back with, are forgotten: `M_UNKNOWN_POS`.
3. Connections that are not used for long are forgotten, and of a device with too many, those that
   were used longest ago.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from homeserver.cache import Cache
from homeserver.core.errors import unknown_pos
from homeserver.sync.sliding.request import RoomConfig
from homeserver.sync.sliding.required_state import RequiredState
from storage import sliding_positions
from storage.sliding_positions import Connection
from storage.state import NumberBlocks
from storage.transaction import Transaction

EXPIRY = 30 * 24 * 3600 * 1000
"""Milliseconds after which a connection that is not used is forgotten."""
MAX_CONNECTIONS = 20
"""Connections of one device."""
_ANSWERS = 2
"""How many answers to one position are kept."""
_TOUCH = 24 * 3600 * 1000


class SentRoom(NamedTuple):
    """What was sent of a room."""

    upto: int | None
    """The position up to which the client knows the room; None: that of its token."""
    config: RoomConfig
    """What it was sent: the newest events, as many as `timeline_limit`, and which state."""
    is_dm: bool
    extensions: int = 0
    """Those of which the client has what is known of the room: bits of `extensions.BITS`."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What a connection was sent at a position: rooms by number, and the names of extensions of
    which it has what is not about rooms."""

    rooms: Mapping[int, SentRoom] = field(default_factory=dict)
    extensions: frozenset[str] = frozenset()

    def dump(self) -> str:
        """As JSON. Configurations are written once, however many rooms have them."""
        states: dict[RequiredState, int] = {}
        rooms = [
            [
                nid,
                room.upto,
                room.config.timeline_limit,
                states.setdefault(room.config.required_state, len(states)),
                int(room.is_dm),
                room.extensions,
            ]
            for nid, room in self.rooms.items()
        ]
        found = {
            "states": [sorted(state.pairs) for state in states],
            "rooms": rooms,
            "extensions": sorted(self.extensions),
        }
        return json.dumps(found, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def load(cls, text: str) -> Sent:
        """The opposite of `dump`."""
        found: Any = json.loads(text)
        states = [
            RequiredState(frozenset((kind, key) for kind, key in pairs))
            for pairs in found["states"]
        ]
        rooms = {
            nid: SentRoom(upto, RoomConfig(limit, states[state]), bool(is_dm), extensions)
            for nid, upto, limit, state, is_dm, extensions in found["rooms"]
        }
        return cls(rooms, frozenset(found["extensions"]))


NOTHING = Sent()


class Connections:
    """Reads and writes positions; one for each homeserver, used in database threads."""

    def __init__(self) -> None:
        self._cache: Cache[int, Sent] = Cache("sliding_positions", _size)
        self.caches = (self._cache,)
        self._numbers = NumberBlocks("sliding_position", 100)

    def read(
        self, txn: Transaction, connection: Connection, position: int, now_ms: int
    ) -> tuple[Sent, bool]:
        """What was sent at a position, and whether `touch` should be called.

        Raises:
            MatrixError: 400 `M_UNKNOWN_POS` if it is none of this connection.
        """
        sent = self._cache.get(position)
        kept = sliding_positions.get(txn, position, with_state=sent is None)
        if kept is None or kept.connection != connection or kept.used_ts < now_ms - EXPIRY:
            raise unknown_pos()
        if sent is None:
            assert kept.state is not None, "it was asked for"
            sent = Sent.load(kept.state)
            self._keep(position, sent)
        return sent, kept.used_ts < now_ms - _TOUCH

    def write(
        self, txn: Transaction, connection: Connection, parent: int, sent: Sent, now_ms: int
    ) -> int:
        """Store what was sent in answer to a position (0: to none); its position.

        Raises:
            MatrixError: 400 `M_UNKNOWN_POS` if the connection began anew meanwhile.
        """
        known = sliding_positions.of_connection(txn, connection)
        if parent and all(position != parent for position, _ in known):
            raise unknown_pos()
        answers = [position for position, other in known if other == parent]
        kept = {parent, *answers[-(_ANSWERS - 1) :]}
        sliding_positions.delete(txn, [number for number, _ in known if number not in kept])
        if not known:
            self._make_room(txn, connection, now_ms)
        position = self._numbers.take(txn, 1)[0]
        sliding_positions.add(txn, connection, position, parent, sent.dump(), now_ms)
        txn.after_commit(lambda: self._keep(position, sent))
        return position

    @staticmethod
    def _make_room(txn: Transaction, connection: Connection, now_ms: int) -> None:
        """Before a new connection: forget old ones."""
        sliding_positions.delete_unused(txn, now_ms - EXPIRY)
        names = sliding_positions.connections(txn, connection.user_id, connection.device_id)
        for name in names[: max(0, len(names) - MAX_CONNECTIONS + 1)]:
            sliding_positions.delete_connection(txn, connection._replace(conn_id=name))

    def _keep(self, position: int, sent: Sent) -> None:
        self._cache[position] = sent


def _size(position: int, sent: Sent) -> int:
    # The configurations of rooms are shared.
    return 400 + 250 * len(sent.rooms)


def touch(txn: Transaction, position: int, now_ms: int) -> None:
    """Note that a position is in use."""
    sliding_positions.touch(txn, position, now_ms)
