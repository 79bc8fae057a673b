"""Finding messages and users of other servers."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from tests.support.federation import eventually, make_federation
from tests.support.room_case import q
from tests.support.server import User


async def searched(user: User, term: str) -> list[str]:
    body = {"search_categories": {"room_events": {"search_term": term}}}
    answer = await user.ok("POST", "/search", body)
    found = answer["search_categories"]["room_events"]["results"]
    return [each["result"]["content"]["body"] for each in found]


async def looked_up(user: User, term: str) -> Any:
    found = await user.ok("POST", "/user_directory/search", {"search_term": term})
    return found["results"]


class SearchingTest(TestCase):
    timeout = 60

    async def start(self, **room: Any) -> None:
        self.servers = await make_federation(self, 2)
        self.alice = await self.servers[0].register("alice")
        self.bob = await self.servers[1].register("bob")
        self.room_id = await self.alice.create_room(**{"preset": "public_chat", **room})
        self.via = self.servers[0].homeserver.config.server_name

    async def join(self) -> None:
        await self.bob.ok("POST", f"/join/{self.room_id}", {}, query={"via": self.via})

    async def test_messages_of_another_server(self) -> None:
        """Shows MISC-3."""
        await self.start()
        await self.alice.send(self.room_id, "treasure before")
        await self.join()
        await self.alice.send(self.room_id, "treasure after")

        async def arrived() -> bool:
            return await searched(self.bob, "treasure") == ["treasure after"]

        await eventually(arrived)
        path = f"/rooms/{q(self.room_id)}/messages"
        await self.bob.ok("GET", path, query={"dir": "b", "limit": 50})
        self.assertEqual(
            set(await searched(self.bob, "treasure")), {"treasure before", "treasure after"}
        )

    async def test_users_of_another_server(self) -> None:
        """Shows MISC-4."""
        await self.start(preset="private_chat")
        path = f"/profile/{q(self.alice.user_id)}/displayname"
        await self.alice.ok("PUT", path, {"displayname": "Wonder"})
        self.assertEqual(await looked_up(self.bob, "wonder"), [])
        await self.alice.invite(self.room_id, self.bob.user_id)
        await self.join()
        shown = {"user_id": self.alice.user_id, "display_name": "Wonder"}
        self.assertEqual(await looked_up(self.bob, "wonder"), [shown])
        carol = await self.servers[1].register("carol")
        self.assertEqual(await looked_up(carol, "wonder"), [])
        self.assertEqual(await looked_up(carol, "alice"), [])
        await self.alice.ok("PUT", path, {"displayname": "Marvel"})

        async def renamed() -> bool:
            return bool(await looked_up(self.bob, "marvel"))

        await eventually(renamed)
        self.assertEqual(await looked_up(self.bob, "wonder"), [])
