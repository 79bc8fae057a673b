"""A test case with one homeserver and a scripted peer that has rooms."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from twisted.trial.unittest import TestCase

from homeserver.core.types import JsonObject
from storage import memberships, rooms
from storage.transaction import Transaction
from tests.support.client import Answer
from tests.support.federation import FederatedServer, make_federation
from tests.support.peer import Peer, PeerRoom, make_peer
from tests.support.server import User


class RemoteCase(TestCase):
    """Alice is at `hearth`; `peer` is another server."""

    hearth: FederatedServer

    async def start(self, **overrides: Any) -> None:
        self.federation = await make_federation(self, 1, **overrides)
        self.hearth = self.federation[0]
        self.alice = await self.hearth.register("alice")
        self.peer = await make_peer(self, self.federation)

    async def another_peer(self) -> Peer:
        return await make_peer(self, self.federation)

    async def join(self, room: PeerRoom | str, *via: Peer, user: User | None = None) -> Answer:
        """Join by way of peers, by default the first."""
        room_id = room if isinstance(room, str) else room.room_id
        return await (user or self.alice).call(
            "POST",
            f"/join/{quote(room_id, safe='')}",
            {},
            query={"via": [peer.name for peer in via or (self.peer,)]},
        )

    async def joined(self, room: PeerRoom, *via: Peer, user: User | None = None) -> None:
        answer = await self.join(room, *via, user=user)
        self.assertEqual(answer.status, 200, answer.body)

    async def state(self, room: PeerRoom, user: User | None = None) -> set[str]:
        """Event IDs of the state that a member sees."""
        events = await (user or self.alice).ok("GET", f"/rooms/{quote(room.room_id)}/state")
        return {event["event_id"] for event in events}

    async def membership(self, room_id: str, user_id: str) -> str | None:
        def read(txn: Transaction) -> str | None:
            room_nid = rooms.nid(txn, room_id)
            row = memberships.get(txn, room_nid, user_id) if room_nid is not None else None
            return row.membership if row is not None else None

        return await self.hearth.homeserver.db.read(read)

    def assert_error(self, answer: Answer, status: int, errcode: str) -> None:
        self.assertEqual((answer.status, answer.body.get("errcode")), (status, errcode))

    def alter(self, peer: Peer, endpoint: str, **changes: Any) -> None:
        """Have a peer answer as usual, but with changed keys; a function is given the value."""
        usual = getattr(peer, f"answer_{endpoint}")

        def answer(request: Any) -> Any:
            found = usual(request)
            if isinstance(found, dict):
                found = altered(found, changes)
            return found

        peer.on[endpoint] = answer


def altered(answer: JsonObject, changes: JsonObject) -> JsonObject:
    answer = dict(answer)
    for key, change in changes.items():
        answer[key] = change(answer.get(key)) if callable(change) else change
        if answer[key] is None:
            del answer[key]
    return answer


def always(answer: Any) -> Any:
    """A script of a peer that answers all requests alike."""
    return lambda request: answer
