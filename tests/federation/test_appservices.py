"""Application services and users of other servers."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from homeserver.appservices import delivery
from tests.support.appservices import Bridge, Service, Told, registration, registration_files
from tests.support.federation import make_federation
from tests.support.network import eventually
from tests.support.room_case import q


class RemoteUsersTest(TestCase):
    timeout = 60

    async def begin(self) -> None:
        self.patch(delivery, "GATHER_S", 0.0)
        self.bridge = Bridge(self)
        namespaces = {
            "users": [{"exclusive": True, "regex": "@_irc_.*"}],
            "aliases": [{"exclusive": True, "regex": "#_irc_.*"}],
        }
        section = registration(url=self.bridge.url, namespaces=namespaces)
        files = registration_files(self, section)
        each = [{"application_service_files": files}, {}]
        self.here, self.there = await make_federation(self, each=each)
        self.irc = Service(self.here)
        self.bob = await self.there.register("bob")

    async def test_invite(self) -> None:
        """Shows AS-2, AS-7: a user is made for an invite of another server, and the service is
        told of it, with what is told of the room."""
        await self.begin()
        ghost = f"@_irc_carol:{self.here.name}"

        def answer(told: Told) -> Any:
            if "/users/" not in told.path:
                return None

            async def make() -> tuple[int, Any]:
                await self.irc.register("_irc_carol", inhibit_login=True)
                return 200, {}

            return Deferred.fromCoroutine(make())

        self.bridge.answers.append(answer)
        room_id = await self.bob.create_room(name="Far away")
        await self.bob.invite(room_id, ghost)
        await eventually(self.bridge.events)
        [event] = self.bridge.events()
        self.assertEqual(
            (event["type"], event["room_id"], event["state_key"], event["sender"]),
            ("m.room.member", room_id, ghost, self.bob.user_id),
        )
        told = {each["type"]: each["content"] for each in event["unsigned"]["invite_room_state"]}
        self.assertEqual(told["m.room.name"], {"name": "Far away"})
        joined = await self.irc.call("POST", f"/join/{q(room_id)}", {}, user=ghost)
        self.assertEqual(joined.status, 200, joined.body)
        sent = await self.bob.send(room_id, "hello")
        await eventually(lambda: sent in [each["event_id"] for each in self.bridge.events()])
        # Without the service's consent there is nobody.
        self.bridge.answers.clear()
        status, body = await self.bob.call(
            "POST", f"/rooms/{q(room_id)}/invite", {"user_id": f"@_irc_none:{self.here.name}"}
        )
        self.assertGreaterEqual(status, 400, body)

    async def test_alias(self) -> None:
        """Shows AS-7: a room is made for a user of another server who asks for its alias."""
        await self.begin()

        def answer(told: Told) -> Any:
            if "/rooms/" not in told.path:
                return None

            async def make() -> tuple[int, Any]:
                body = {"room_alias_name": "_irc_den", "preset": "public_chat"}
                made = await self.irc.call("POST", "/createRoom", body)
                return made.status, {}

            return Deferred.fromCoroutine(make())

        self.bridge.answers.append(answer)
        alias = f"#_irc_den:{self.here.name}"
        await self.bob.ok("POST", f"/join/{q(alias)}", {})
        asked = [each.path for each in self.bridge.told if "/rooms/" in each.path]
        self.assertEqual(len(asked), 1)
