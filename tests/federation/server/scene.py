"""A homeserver with a user and a room, and a scripted server that asks it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from twisted.trial.unittest import TestCase

from homeserver.core.event import Event
from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.core.types import JsonObject
from tests.support.federation import FederatedServer, Federation, make_federation
from tests.support.peer import Peer, make_peer
from tests.support.peer_room import PeerRoom
from tests.support.server import User


class Scene(TestCase):
    """`hearth` is asked, by `peer` on behalf of `mallory`; `alice` lives on `hearth`."""

    federation: Federation
    hearth: FederatedServer
    peer: Peer
    alice: User

    async def begin(self) -> None:
        self.federation = await make_federation(self, 1)
        (self.hearth,) = self.federation
        self.peer = await make_peer(self, self.federation)
        self.mallory = self.peer.user("mallory")
        self.alice = await self.hearth.register("alice")

    async def room(self, version: str = "10", preset: str = "public_chat", **body: Any) -> str:
        """A new room of alice's."""
        return await self.alice.create_room(room_version=version, preset=preset, **body)

    async def make(
        self,
        room_id: str,
        user_id: str | None = None,
        call: str = "make_join",
        ver: Sequence[str] | None = None,
        peer: Peer | None = None,
    ) -> tuple[int, Any]:
        """(status, answer) of a request for a template; with all versions unless `ver`."""
        query = {} if call == "make_leave" else {"ver": list(ver or ROOM_VERSIONS)}
        return await (peer or self.peer).get(
            self.hearth.name, f"/v1/{call}/{{}}/{{}}", room_id, user_id or self.mallory, **query
        )

    async def template(
        self, room_id: str, user_id: str | None = None, call: str = "make_join"
    ) -> tuple[JsonObject, PeerRoom]:
        """A template that is given, and the room for signing it."""
        status, made = await self.make(room_id, user_id, call)
        self.assertEqual(status, 200, made)
        room = PeerRoom(self.peer.name, self.peer.key, made["room_version"], room_id)
        return made["event"], room

    async def event(
        self, room_id: str, user_id: str | None = None, call: str = "make_join", **changes: Any
    ) -> Event:
        """The event that an honest server makes of a template; `changes` make it another."""
        template, room = await self.template(room_id, user_id, call)
        return self.sign(template, room, **changes)

    def sign(self, template: JsonObject, room: PeerRoom, **changes: Any) -> Event:
        """A template completed, changed, hashed and signed by the peer."""
        pdu = {**template, "origin_server_ts": self.peer.now(), **changes}
        if room.version.event_format == 1:
            self.numbers = getattr(self, "numbers", 0) + 1
            pdu.setdefault("event_id", f"$scene{self.numbers}:{self.peer.name}")
        return room.signed(pdu)

    async def send(
        self,
        room_id: str,
        event: Event | JsonObject,
        call: str = "v2/send_join",
        *,
        event_id: str | None = None,
        query: dict[str, Any] | None = None,
        peer: Peer | None = None,
    ) -> tuple[int, Any]:
        """(status, answer) of the second step of a handshake."""
        pdu = event.pdu if isinstance(event, Event) else event
        if event_id is None:
            assert isinstance(event, Event)
            event_id = event.event_id
        path = f"/_matrix/federation/{call}/{quoted(room_id)}/{quoted(event_id)}"
        return await (peer or self.peer).request("PUT", self.hearth.name, path, pdu, query=query)

    async def membership(self, room_id: str, user_id: str | None = None) -> str | None:
        """What the room's state says of a user, as alice is told."""
        status, content = await self.alice.call(
            "GET", f"/rooms/{quoted(room_id)}/state/m.room.member/{quoted(user_id or self.mallory)}"
        )
        return content["membership"] if status == 200 else None

    def refused(self, answer: tuple[int, Any], status: int, errcode: str) -> None:
        """The request was answered with this error."""
        self.assertEqual((answer[0], answer[1].get("errcode")), (status, errcode), answer[1])


def quoted(part: str) -> str:
    """An identifier as a segment of a path."""
    return quote(part, safe="")
