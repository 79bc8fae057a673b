"""Collecting parts of a room's state trees that nothing refers to any more.

`storage.state_nodes` says why what is written meanwhile is safe. What is in use is remembered
while it is being collected: about a hundred bytes for each node.
"""

from __future__ import annotations

from homeserver.core import state_tree
from storage import rooms, state_nodes
from storage.database import Database
from storage.transaction import Transaction

LOOKED_AT = 1000
"""Nodes that are looked at in one transaction."""


class StateCollection:
    """Collects state nodes."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def collect(self, room_id: str) -> int:
        """Delete the nodes of a room that no state has; how many there were."""
        nid, since = await self._db.write(_begin, room_id)
        if nid is None:
            return 0
        live = await self._mark(nid)
        behind, deleted = b"", 0
        while True:
            found = await self._db.read(state_nodes.older, nid, since, behind, LOOKED_AT)
            if not found:
                return deleted
            behind = found[-1]
            dead = [node for node in found if node not in live]
            if dead:
                deleted += await self._db.write(_sweep, room_id, nid, dead, since)

    async def _mark(self, room_nid: int) -> set[bytes]:
        """The hashes of all nodes that are in use."""

        def read(txn: Transaction, part: list[bytes]) -> set[bytes]:
            return state_tree.below(part, lambda names: state_nodes.load(txn, room_nid, names))

        level = await self._db.read(state_nodes.roots, room_nid)
        live = set(level)
        while level:
            waiting, level = list(level), set()
            for start in range(0, len(waiting), LOOKED_AT):
                level |= await self._db.read(read, waiting[start : start + LOOKED_AT])
            level -= live
            live |= level
        return live


def _begin(txn: Transaction, room_id: str) -> tuple[int | None, int]:
    """The room's number and a position: what is written to its trees later has no earlier one."""
    room = rooms.lock(txn, [room_id]).get(room_id)
    return (None, 0) if room is None else (room.room_nid, txn.next_pos())


def _sweep(txn: Transaction, room_id: str, room_nid: int, dead: list[bytes], since: int) -> int:
    rooms.lock(txn, [room_id])
    return state_nodes.delete(txn, room_nid, dead, since)
