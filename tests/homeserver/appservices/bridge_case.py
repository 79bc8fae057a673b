"""Tests with a homeserver and an application service that listens."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from homeserver.appservices import delivery
from tests.support.appservices import Bridge, Service, registration, registration_files
from tests.support.network import eventually
from tests.support.server import TestServer, make_server

ALICE = "@_irc_alice:hearth.test"
BOT = "@irc-bot:hearth.test"


class BridgeCase(TestCase):
    timeout = 60
    server: TestServer
    bridge: Bridge
    irc: Service

    async def prepare(self, **more: Any) -> None:
        """A homeserver, and a service with users, aliases and a listening port."""
        self.patch(delivery, "FIRST_PAUSE_S", 0.02)
        self.patch(delivery, "GATHER_S", 0.0)
        self.bridge = Bridge(self)
        section = registration(**{"url": f"{self.bridge.url}/base", **more})
        files = registration_files(self, section)
        self.server = await make_server(self, application_service_files=files)
        self.irc = Service(self.server)
        await self.irc.register("_irc_alice", inhibit_login=True)

    async def room(self, *, user: str | None = ALICE, **body: Any) -> str:
        """A room that a user of the service makes."""
        answer = await self.irc.call("POST", "/createRoom", body, user=user)
        self.assertEqual(answer.status, 200, answer.body)
        room_id: str = answer.body["room_id"]
        return room_id

    async def came(self, **fields: Any) -> dict[str, Any]:
        """The event with these fields, once the service was told of it."""

        def found() -> Any:
            matching = [
                event
                for event in self.bridge.events()
                if all(event.get(name) == value for name, value in fields.items())
            ]
            return matching[0] if matching else None

        event: dict[str, Any] = await eventually(found, f"no event {fields}")
        return event
