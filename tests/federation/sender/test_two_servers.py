"""A server sends to another that goes away and comes back, over TLS."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from federation.sender.sender import FederationSender
from tests.support.federation import eventually, make_federation


class AwayAndBackTest(TestCase):
    timeout = 100

    async def test_what_was_missed_comes_once_the_server_is_heard_from(self) -> None:
        """Shows TXN-4, TXN-5, TXN-10."""
        a, b = await make_federation(self, 2)
        alice, bob = await a.register("alice"), await b.register("bob")
        room_id = await alice.create_room(preset="public_chat")
        await bob.ok("POST", f"/join/{room_id}", {}, query={"via": a.name})
        since = (await bob.sync())["next_batch"]
        await b.stop()
        said = [await alice.send(room_id, f"{number}") for number in range(5)]
        messages = {"messages": {bob.user_id: {"*": {"n": 1}}}}
        await alice.ok("PUT", "/sendToDevice/m.x/t1", messages)
        sender = a.homeserver.services[FederationSender]
        await eventually(lambda: sender.unreachable)
        await a.restart()
        await b.start()
        # A signed request of b.
        await bob.ok("GET", f"/profile/{alice.user_id}")
        found: list[str] = []
        devices: list[Any] = []
        tokens = [since]

        async def all_there() -> bool:
            answer = await bob.sync(tokens[-1], timeout=200)
            tokens.append(answer["next_batch"])
            room = answer.get("rooms", {}).get("join", {}).get(room_id, {})
            found.extend(event["event_id"] for event in room.get("timeline", {}).get("events", []))
            devices.extend(answer.get("to_device", {}).get("events", []))
            return set(said) <= set(found) and bool(devices)

        await eventually(all_there, within=60)
        self.assertEqual([event_id for event_id in found if event_id in said], said)
        self.assertEqual([message["content"] for message in devices], [{"n": 1}])
