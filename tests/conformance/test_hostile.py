"""No endpoint answers a hostile request with anything but a proper Matrix error."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.names.error import DNSNameError
from twisted.trial.unittest import TestCase

from config import Config
from federation.client.agent import Agent
from federation.client.dns import Records
from homeserver import app
from homeserver.web.endpoint import Auth, EndpointDeclaration
from tests.conformance.hostile import cases
from tests.support.admin import make_admin
from tests.support.server import SERVER_NAME, TestServer, User, make_server

# Would end the session that the other requests are made with, or never ends by itself.
_APART = frozenset({"logout", "logout_all", "deactivate", "deactivate_account"})


_ASKS_OTHERS = {
    "get_public_rooms": "server=",
    "search_public_rooms": "server=",
    "download": "/download/",
    "download_legacy": "/download/",
    "thumbnail": "/thumbnail/",
    "thumbnail_legacy": "/thumbnail/",
}
"""Names of endpoints that do nothing but ask another server, when told to, and what then is in
the path: that it cannot be reached is a fault beyond this server (502, 504)."""


class NoNames:
    """A name server that knows no name: nobody outside is asked about the nonsense below."""

    def lookupAddress(self, name: str) -> Deferred[Records]:
        return fail(DNSNameError())

    lookupIPV6Address = lookupService = lookupAddress


def _agent_without_names(config: Config, reactor: Any) -> Agent:
    return Agent(reactor, config.federation, dns=NoNames())


class HostileRequestTest(TestCase):
    timeout = 300

    async def test_every_endpoint_survives_hostile_requests(self) -> None:
        """Shows HTTP-1, HTTP-3, HTTP-4, HTTP-5, ID-6, RD-9."""
        self.patch(app, "_federation_agent", _agent_without_names)
        nowhere = {"smtp_port": 1, "tls": "none", "from": "hearth@hearth.test"}
        server = await make_server(self, email=nowhere)
        alice = await server.register("alice")
        room_id = await alice.create_room(preset="public_chat")
        event_id = await alice.send(room_id)
        bob = await server.register("bob")
        await bob.join(room_id)
        values = {
            "room_id": room_id,
            "event_id": event_id,
            "user_id": alice.user_id,
            "room_id_or_alias": room_id,
            "event_type": "m.room.message",
            "server_name": SERVER_NAME,
            "txn_id": "t",
        }
        sent = 0
        for declaration in server.homeserver.router.declarations:
            if declaration.auth in (Auth.FEDERATION, Auth.ADMIN) or declaration.name in _APART:
                continue
            # Some of the requests are right by chance, and take her out of the room.
            await alice.call("POST", f"/join/{room_id}", {})
            sent += await self._attack(server, alice, declaration, values)
        self.assertGreater(sent, 2000)
        # The room is as it was, and usable.
        await bob.send(room_id, "still here")

    async def test_every_endpoint_for_administrators_survives_hostile_requests(self) -> None:
        """Shows XC-4."""
        self.patch(app, "_federation_agent", _agent_without_names)
        server = await make_server(self)
        boss = await make_admin(await server.register("boss"))
        bob = await server.register("bob")
        room_id = await bob.create_room(preset="public_chat")
        values = {
            "room_id": room_id,
            "room_id_or_alias": room_id,
            "event_id": await bob.send(room_id),
            "user_id": bob.user_id,
            "device_id": bob.device_id,
            "server_name": SERVER_NAME,
        }
        sent = 0
        for declaration in server.homeserver.router.declarations:
            if declaration.auth is Auth.ADMIN:
                sent += await self._attack(server, boss, declaration, values)
        self.assertGreater(sent, 2000)
        # Some of the requests are right, and delete the room: what is left works.
        await boss.send(await boss.create_room(), "still here")

    async def _attack(
        self,
        server: TestServer,
        alice: User,
        declaration: EndpointDeclaration,
        values: dict[str, str],
    ) -> int:
        sent = 0
        for case in cases(declaration, values):
            request = server.client.build(case.method, case.path, body=case.body, token=alice.token)
            # The client checks that each error has the standard form, and each success its type.
            answer = await server.client.send(request)
            where = f"{case.method} {case.path[:200]} {case.body[:200]!r} -> {answer}"
            if declaration.name in _ASKS_OTHERS and answer.status in (502, 504):
                self.assertIn(_ASKS_OTHERS[declaration.name], case.path, where)
                self.assertNotIn(f"/{SERVER_NAME}/", case.path, where)
            else:
                self.assertLess(answer.status, 500, where)
            sent += 1
        return sent
