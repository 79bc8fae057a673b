"""Searching users over the API."""

from __future__ import annotations

from typing import Any

from homeserver.rooms import user_directory
from tests.support.room_case import RoomTestCase, q
from tests.support.server import User


class DirectoryCase(RoomTestCase):
    async def find(self, user: User, term: str, **more: Any) -> list[str]:
        body = {"search_term": term, **more}
        found = await user.ok("POST", "/user_directory/search", body)
        return [each["user_id"] for each in found["results"]]

    async def name(self, user: User, name: str) -> None:
        path = f"/profile/{q(user.user_id)}/displayname"
        await user.ok("PUT", path, {"displayname": name})


class FindingTest(DirectoryCase):
    async def test_by_name_and_by_id(self) -> None:
        """Shows MISC-4."""
        await self.start()
        await self.name(self.alice, "Älice Liddell 爱丽丝")
        alice = self.alice.user_id
        for term in ("ali", "ALICE", "alice", "liddell al", "älice", "@alice", alice, "爱丽", "丝"):
            self.assertEqual(await self.find(self.bob, term), [alice], term)
        for term in ("lice", "alicex", "liddell bob", "", "  ", "@alice:elsewhere", "hearth"):
            self.assertEqual(await self.find(self.bob, term), [], term)

    async def test_the_answer_has_the_profile(self) -> None:
        """Shows MISC-4."""
        await self.start()
        await self.name(self.alice, "Alice L")
        path = f"/profile/{q(self.alice.user_id)}/avatar_url"
        await self.alice.ok("PUT", path, {"avatar_url": "mxc://hearth.test/a"})
        found = await self.bob.ok("POST", "/user_directory/search", {"search_term": "alice"})
        self.assertEqual(
            found,
            {
                "results": [
                    {
                        "user_id": self.alice.user_id,
                        "display_name": "Alice L",
                        "avatar_url": "mxc://hearth.test/a",
                    }
                ],
                "limited": False,
            },
        )

    async def test_limits(self) -> None:
        """Shows MISC-4."""
        await self.start()
        for number in range(4):
            user = await self.server.register(f"carol{number}")
            await user.join(self.room_id)
        body = {"search_term": "carol", "limit": 3}
        found = await self.alice.ok("POST", "/user_directory/search", body)
        self.assertEqual((len(found["results"]), found["limited"]), (3, True))
        found = await self.alice.ok("POST", "/user_directory/search", {**body, "limit": 4})
        self.assertEqual((len(found["results"]), found["limited"]), (4, False))
        for bad in (
            {"limit": 3},
            {"search_term": 5},
            {**body, "limit": -1},
            {**body, "limit": "x"},
        ):
            answer = await self.alice.call("POST", "/user_directory/search", bad)
            self.assertEqual(answer.status, 400, bad)

    async def test_many_who_enter_at_once(self) -> None:
        """Shows MISC-4."""
        self.patch(user_directory, "_MANY", 1)
        await self.start()
        users = [await self.server.register(f"carol{number}") for number in range(4)]
        for user in users:
            await user.join(self.room_id)
        self.assertEqual(len(await self.find(self.alice, "carol")), 4)
        await self.name(users[0], "Dora")
        await users[1].join(self.room_id)
        self.assertEqual(await self.find(self.alice, "dor"), [users[0].user_id])

    async def test_an_exact_name_comes_first(self) -> None:
        await self.start()
        for name in ("anna", "annabel", "ann"):
            user = await self.server.register(name)
            await user.join(self.room_id)
        self.assertEqual((await self.find(self.bob, "anna"))[0], "@anna:hearth.test")

    async def test_what_looks_like_an_expression_is_text(self) -> None:
        """Shows MISC-4."""
        await self.start()
        for term in ("%", "_", "al%", "*", "'", '"', "a' OR 1=1", "\\", "(", "al*", "\U0010ffff"):
            found = await self.bob.call("POST", "/user_directory/search", {"search_term": term})
            self.assertEqual(found.status, 200, term)
        self.assertEqual(await self.find(self.bob, "a%e"), [])


class VisibilityTest(DirectoryCase):
    async def test_only_shared_and_open_rooms(self) -> None:
        """Shows MISC-4."""
        await self.start(preset="private_chat")
        alice = self.alice.user_id
        self.assertEqual(await self.find(self.bob, "alice"), [])
        await self.alice.invite(self.room_id, self.bob.user_id)
        self.assertEqual(await self.find(self.bob, "alice"), [])
        await self.bob.join(self.room_id)
        self.assertEqual(await self.find(self.bob, "alice"), [alice])
        await self.bob.leave(self.room_id)
        self.assertEqual(await self.find(self.bob, "alice"), [])
        await self.alice.set_state(self.room_id, "m.room.join_rules", {"join_rule": "public"})
        self.assertEqual(await self.find(self.bob, "alice"), [alice])
        await self.alice.set_state(self.room_id, "m.room.join_rules", {"join_rule": "invite"})
        self.assertEqual(await self.find(self.bob, "alice"), [])
        await self.alice.set_state(
            self.room_id, "m.room.history_visibility", {"history_visibility": "world_readable"}
        )
        self.assertEqual(await self.find(self.bob, "alice"), [alice])
        await self.alice.leave(self.room_id)
        self.assertEqual(await self.find(self.bob, "alice"), [])

    async def test_a_name_for_one_room_stays_there(self) -> None:
        """Shows MISC-4."""
        await self.start()
        private = await self.alice.create_room(preset="private_chat")
        await self.alice.invite(private, self.bob.user_id)
        await self.bob.join(private)
        await self.bob.join(self.room_id)
        await self.alice.set_state(
            private,
            "m.room.member",
            {"membership": "join", "displayname": "Sourdough"},
            self.alice.user_id,
        )
        for user in (self.bob, await self.server.register("carol")):
            self.assertEqual(await self.find(user, "sourdough"), [])
            found = await user.ok("POST", "/user_directory/search", {"search_term": "alice"})
            self.assertNotIn("Sourdough", str(found))
            self.assertEqual(len(found["results"]), 1)

    async def test_names_are_followed(self) -> None:
        """Shows MISC-4."""
        await self.start()
        await self.name(self.alice, "Queen")
        self.assertEqual(await self.find(self.bob, "queen"), [self.alice.user_id])
        await self.name(self.alice, "King")
        self.assertEqual(await self.find(self.bob, "queen"), [])
        self.assertEqual(await self.find(self.bob, "king"), [self.alice.user_id])

    async def test_oneself_and_closed_accounts_are_not_found(self) -> None:
        """Shows MISC-4, ACC-1."""
        await self.start()
        self.assertEqual(await self.find(self.alice, "alice"), [])
        await self.bob.join(self.room_id)
        self.assertEqual(await self.find(self.alice, "bob"), [self.bob.user_id])
        await self.server.homeserver.db.write(
            lambda txn: txn.execute(
                "UPDATE users SET deactivated_ts = 1 WHERE user_id = ?", (self.bob.user_id,)
            )
        )
        self.assertEqual(await self.find(self.alice, "bob"), [])
