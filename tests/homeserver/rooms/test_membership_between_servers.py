"""Two homeservers, and every way between them into a room and out of it."""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import quote

from twisted.trial.unittest import TestCase

from tests.support.events import ALL_VERSIONS
from tests.support.federation import FederatedServer, eventually, make_federation
from tests.support.server import User


def q(text: str) -> str:
    return quote(text, safe="")


class BetweenServersTest(TestCase):
    """Alice is at `a`, Bob is at `b`."""

    async def start(self, count: int = 2) -> None:
        self.federation = await make_federation(self, count)
        self.a, self.b = self.federation[0], self.federation[1]
        self.alice, self.bob = await self.a.register("alice"), await self.b.register("bob")

    async def call(self, user: User, action: str, room: str, *via: FederatedServer) -> Any:
        return await user.call(
            "POST", f"/{action}/{q(room)}", {}, query={"via": [server.name for server in via]}
        )

    async def membership(self, reader: User, room_id: str, user: User) -> str | None:
        path = f"/rooms/{q(room_id)}/state/m.room.member/{q(user.user_id)}"
        answer = await reader.call("GET", path)
        return answer.body.get("membership") if answer.status == 200 else None

    async def becomes(self, reader: User, room_id: str, user: User, wanted: str) -> None:
        async def holds() -> bool:
            return await self.membership(reader, room_id, user) == wanted

        await eventually(holds)

    async def same_state(self, room_id: str) -> None:
        async def holds() -> bool:
            path = f"/rooms/{q(room_id)}/state"
            one, other = [await user.ok("GET", path) for user in (self.alice, self.bob)]
            return {e["event_id"] for e in one} == {e["event_id"] for e in other}

        await eventually(holds)

    async def is_listed(self, user: User, section: str, room_id: str) -> bool:
        return room_id in (await user.sync()).get("rooms", {}).get(section, {})

    async def test_join_speak_leave_come_back(self) -> None:
        """Shows FJ-3, FJ-5, FJ-9."""
        await self.start()
        for version in ALL_VERSIONS:
            room_id = await self.alice.create_room(room_version=version, preset="public_chat")
            answer = await self.call(self.bob, "join", room_id, self.a)
            self.assertEqual((answer.status, answer.body), (200, {"room_id": room_id}))
            await self.same_state(room_id)
            for sender, reader in ((self.alice, self.bob), (self.bob, self.alice)):
                sent = await sender.send(room_id)
                await eventually(partial(self.has, reader, room_id, sent))
            await self.bob.leave(room_id)
            await self.becomes(self.alice, room_id, self.bob, "leave")
            await self.alice.set_state(room_id, "m.room.name", {"name": "New"})
            answer = await self.call(self.bob, "join", room_id, self.a)
            self.assertEqual(answer.status, 200, answer.body)
            await self.same_state(room_id)

    async def has(self, reader: User, room_id: str, event_id: str) -> bool:
        path = f"/rooms/{q(room_id)}/event/{q(event_id)}"
        return (await reader.call("GET", path)).status == 200

    async def test_invite_and_join(self) -> None:
        """Shows FJ-11, FJ-12, FJ-13."""
        await self.start()
        for version in ALL_VERSIONS:
            room_id = await self.alice.create_room(
                room_version=version, name="Ours", invite=[self.bob.user_id], is_direct=True
            )
            invite = (await self.bob.sync())["rooms"]["invite"][room_id]["invite_state"]["events"]
            self.assertIn("Ours", [event["content"].get("name") for event in invite])
            answer = await self.bob.call("POST", f"/rooms/{q(room_id)}/join", {})
            self.assertEqual(answer.status, 200, answer.body)
            await self.same_state(room_id)
            self.assertEqual(await self.membership(self.alice, room_id, self.bob), "join")

    async def test_invite_and_reject(self) -> None:
        """Shows FJ-15."""
        await self.start()
        for version in ALL_VERSIONS:
            room_id = await self.alice.create_room(room_version=version)
            await self.alice.invite(room_id, self.bob.user_id)
            self.assertTrue(await self.is_listed(self.bob, "invite", room_id))
            await self.bob.leave(room_id)
            self.assertFalse(await self.is_listed(self.bob, "invite", room_id))
            await self.becomes(self.alice, room_id, self.bob, "leave")
            # Invited again, and the inviting server is away.
            await self.alice.invite(room_id, self.bob.user_id)
            self.federation.cut(self.b, self.a)
            await self.bob.leave(room_id)
            self.assertFalse(await self.is_listed(self.bob, "invite", room_id))
            self.federation.heal()

    async def test_invite_and_take_back(self) -> None:
        """Shows FJ-16."""
        await self.start()
        room_id = await self.alice.create_room()
        await self.alice.invite(room_id, self.bob.user_id)
        self.assertTrue(await self.is_listed(self.bob, "invite", room_id))
        kick = {"user_id": self.bob.user_id}
        await self.alice.ok("POST", f"/rooms/{q(room_id)}/kick", kick)

        async def is_gone() -> bool:
            return not await self.is_listed(self.bob, "invite", room_id)

        await eventually(is_gone)

    async def test_knock(self) -> None:
        """Shows FJ-13, FJ-18."""
        await self.start()
        rules = {"type": "m.room.join_rules", "content": {"join_rule": "knock"}}
        for version in ("7", "9", "10", "11", "12"):
            room_id = await self.alice.create_room(
                room_version=version, name="Closed", initial_state=[rules]
            )
            answer = await self.call(self.bob, "knock", room_id, self.a)
            self.assertEqual(answer.status, 200, answer.body)
            await self.becomes(self.alice, room_id, self.bob, "knock")
            self.assertTrue(await self.is_listed(self.bob, "knock", room_id))
            await self.bob.leave(room_id)
            await self.becomes(self.alice, room_id, self.bob, "leave")
            answer = await self.call(self.bob, "knock", room_id, self.a)
            self.assertEqual(answer.status, 200, answer.body)
            await self.alice.invite(room_id, self.bob.user_id)
            self.assertTrue(await self.is_listed(self.bob, "invite", room_id))
            self.assertFalse(await self.is_listed(self.bob, "knock", room_id))
            answer = await self.call(self.bob, "join", room_id)
            self.assertEqual(answer.status, 200, answer.body)
        for room_version in ("6", "11"):
            room_id = await self.alice.create_room(room_version=room_version)
            answer = await self.call(self.bob, "knock", room_id, self.a)
            expected = "M_FORBIDDEN" if room_version == "11" else "M_INCOMPATIBLE_ROOM_VERSION"
            self.assertEqual(answer.body["errcode"], expected)

    async def test_restricted(self) -> None:
        """Shows FJ-10."""
        await self.start()
        for version in ("8", "9", "10", "11", "12"):
            space = await self.alice.create_room(preset="public_chat", room_version=version)
            allow = [{"type": "m.room_membership", "room_id": space}]
            content = {"join_rule": "restricted", "allow": allow}
            rules = {"type": "m.room.join_rules", "content": content}
            room_id = await self.alice.create_room(room_version=version, initial_state=[rules])
            answer = await self.call(self.bob, "join", room_id, self.a)
            self.assertEqual((answer.status, answer.body["errcode"]), (403, "M_FORBIDDEN"))
            answer = await self.call(self.bob, "join", space, self.a)
            self.assertEqual(answer.status, 200, answer.body)
            answer = await self.call(self.bob, "join", room_id, self.a)
            self.assertEqual(answer.status, 200, answer.body)
            path = f"/rooms/{q(room_id)}/state/m.room.member/{q(self.bob.user_id)}"
            member = await self.alice.ok("GET", path)
            self.assertEqual(member["join_authorised_via_users_server"], self.alice.user_id)
            # Another user of this server, which is in the room but may not authorise anybody.
            await self.alice.set_state(
                room_id,
                "m.room.power_levels",
                {**await self.power(room_id), "invite": 50},
            )
            await self.same_state(room_id)
            carol = await self.b.register(f"carol{version}")
            await carol.join(space)
            await self.becomes(self.alice, space, carol, "join")
            answer = await self.call(carol, "join", room_id)
            self.assertEqual(answer.status, 200, answer.body)
            await self.becomes(self.alice, room_id, carol, "join")

    async def power(self, room_id: str) -> Any:
        return await self.alice.ok("GET", f"/rooms/{q(room_id)}/state/m.room.power_levels")

    async def test_fail_over(self) -> None:
        """Shows FJ-3: a server that is away does not matter where another one is in the room."""
        await self.start(3)
        c = self.federation[2]
        carol = await c.register("carol")
        room_id = await self.alice.create_room(preset="public_chat")
        self.assertEqual((await self.call(self.bob, "join", room_id, self.a)).status, 200)
        await self.same_state(room_id)
        # So that the keys of the server that will be away are known.
        other_id = await self.alice.create_room(preset="public_chat")
        self.assertEqual((await self.call(carol, "join", other_id, self.a)).status, 200)
        self.federation.cut(c, self.a)
        answer = await self.call(carol, "join", room_id, self.a, self.b)
        self.assertEqual(answer.status, 200, answer.body)
        await self.becomes(self.alice, room_id, carol, "join")

    async def test_banned(self) -> None:
        """Shows FJ-21."""
        await self.start()
        room_id = await self.alice.create_room(preset="public_chat")
        ban = {"user_id": self.bob.user_id}
        await self.alice.ok("POST", f"/rooms/{q(room_id)}/ban", ban)
        answer = await self.call(self.bob, "join", room_id, self.a)
        self.assertEqual((answer.status, answer.body["errcode"]), (403, "M_FORBIDDEN"))

    async def test_an_alias(self) -> None:
        await self.start()
        room_id = await self.alice.create_room(preset="public_chat", room_alias_name="here")
        answer = await self.call(self.bob, "join", f"#here:{self.a.name}")
        self.assertEqual((answer.status, answer.body), (200, {"room_id": room_id}))
        answer = await self.call(self.bob, "join", f"#nowhere:{self.a.name}")
        self.assertEqual((answer.status, answer.body["errcode"]), (404, "M_NOT_FOUND"))
