"""Looking into rooms of a test server, past the API: for tests of what the API writes."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from storage import memberships, rooms, state
from storage.transaction import Transaction
from tests.support.server import TestServer


class Logged(NamedTuple):
    """An event of a room's log."""

    type: str
    state_key: str | None
    sender: str
    content: dict[str, Any]


async def log_of(server: TestServer, room_id: str) -> list[Logged]:
    """All events of a room, oldest first."""

    def read(txn: Transaction) -> list[Logged]:
        rows = txn.all(
            "SELECT e.type, e.state_key, e.sender, e.json FROM events e"
            " JOIN rooms r ON r.room_nid = e.room_nid WHERE r.room_id = ? ORDER BY e.pos",
            (room_id,),
        )
        return [Logged(row[0], row[1], row[2], json.loads(row[3])["content"]) for row in rows]

    return await server.homeserver.db.read(read)


async def state_of(server: TestServer, room_id: str) -> dict[tuple[str, str], dict[str, Any]]:
    """The contents of a room's current state."""

    def read(txn: Transaction) -> dict[tuple[str, str], dict[str, Any]]:
        room_nid = rooms.nid(txn, room_id)
        assert room_nid is not None
        found = state.current(txn, room_nid)
        return {key: json.loads(row.json)["content"] for key, row in found.items()}

    return await server.homeserver.db.read(read)


async def content_of(
    server: TestServer, room_id: str, event_type: str, state_key: str = ""
) -> dict[str, Any] | None:
    """The content of one current state event."""
    return (await state_of(server, room_id)).get((event_type, state_key))


async def membership_of(server: TestServer, room_id: str, user_id: str) -> str | None:
    """A user's current membership."""
    content = await content_of(server, room_id, "m.room.member", user_id)
    return content["membership"] if content is not None else None


async def stripped_state_of(
    server: TestServer, room_id: str, user_id: str
) -> list[dict[str, Any]] | None:
    """The stripped state that a user's invite or knock came with."""

    def read(txn: Transaction) -> str | None:
        room_nid = rooms.nid(txn, room_id)
        assert room_nid is not None
        row = memberships.get(txn, room_nid, user_id)
        return row.stripped_state if row is not None else None

    text = await server.homeserver.db.read(read)
    return json.loads(text) if text is not None else None


async def count_of_rooms(server: TestServer) -> int:
    """How many rooms the server knows."""
    found: int = await server.homeserver.db.read(
        lambda txn: txn.value("SELECT COUNT(*) FROM rooms")
    )
    return found
