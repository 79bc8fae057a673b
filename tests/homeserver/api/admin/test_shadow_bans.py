"""Shadow-banned users get answers as ever, and reach nobody."""

from __future__ import annotations

import time
from typing import Any

from twisted.trial.unittest import SkipTest

from tests.homeserver.api.admin.case import V1, AdminTestCase
from tests.support.admin import make_admin
from tests.support.databases import default_kind, migrated_database, redis_url
from tests.support.federation import make_federation
from tests.support.room_case import TEXT, q
from tests.support.server import User, make_server


class ShadowBanTest(AdminTestCase):
    async def ban(self) -> None:
        path = f"{V1}/users/{q(self.bob.user_id)}/shadow_ban"
        self.assertEqual(await self.alice.ok("POST", path), {})

    async def state(self) -> Any:
        """What others could have noticed: all events of the room, its members, its state."""
        path = f"/rooms/{q(self.room_id)}"
        history = await self.alice.ok("GET", f"{path}/messages?dir=b&limit=100")
        found = history["chunk"] + await self.alice.ok("GET", f"{path}/state")
        return [{key: event[key] for key in ("event_id", "content")} for event in found]

    async def test_what_is_sent_reaches_nobody(self) -> None:
        """Shows XC-4."""
        await self.prepare()
        carol = await self.server.register("carol")
        self.room_id = await self.alice.create_room(
            preset="public_chat",
            power_level_content_override={"users": {self.bob.user_id: 50, self.alice.user_id: 100}},
            room_version="10",
        )
        await self.bob.join(self.room_id)
        await carol.join(self.room_id)
        own = await self.bob.send(self.room_id, "before")
        theirs = await self.alice.send(self.room_id, "before")
        before = await self.state()
        await self.ban()
        room = f"/rooms/{q(self.room_id)}"
        sent = await self.bob.ok("PUT", f"{room}/send/m.room.message/t1", TEXT)
        self.assertRegex(sent["event_id"], r"^\$[A-Za-z0-9_-]{43}$")
        for method, path, body in (
            ("PUT", f"{room}/state/m.room.topic/", {"topic": "x"}),
            ("PUT", f"{room}/redact/{q(own)}/t2", {}),
            ("PUT", f"{room}/redact/{q(theirs)}/t3", {}),
            ("PUT", f"{room}/typing/{q(self.bob.user_id)}", {"typing": True, "timeout": 9000}),
            ("POST", f"{room}/invite", {"user_id": "@dave:hearth.test", "reason": "spam"}),
            ("POST", f"{room}/invite", {"user_id": "@x:elsewhere.example"}),
            ("POST", f"{room}/kick", {"user_id": carol.user_id}),
            ("POST", f"{room}/ban", {"user_id": carol.user_id}),
            (
                "PUT",
                f"{room}/state/m.room.member/{q(self.bob.user_id)}",
                {"membership": "join", "displayname": "SPAM"},
            ),
            (
                "PUT",
                f"/profile/{q(self.bob.user_id)}/displayname",
                {"displayname": "SPAM"},
            ),
        ):
            answer = await self.bob.call(method, path, body)
            self.assertEqual(answer.status, 200, (path, answer))
        self.assertEqual(await self.state(), before)
        sync = await carol.sync()
        self.assertNotIn("m.typing", str(sync["rooms"]["join"][self.room_id]))
        # What is not allowed is refused as ever.
        other = await self.alice.create_room()
        answer = await self.bob.call("PUT", f"/rooms/{q(other)}/send/m.room.message/t4", TEXT)
        self.assert_error(answer, 403, "M_FORBIDDEN")
        await self.alice.ok("DELETE", f"{V1}/users/{q(self.bob.user_id)}/shadow_ban")
        event_id = await self.bob.send(self.room_id, "after")
        self.assertEqual((await self.event(carol, event_id))["content"]["body"], "after")

    async def test_rooms_messages_to_devices_and_going(self) -> None:
        """Shows XC-4."""
        await self.prepare()
        await self.ban()
        room_id = await self.bob.create_room(
            preset="public_chat", visibility="public", invite=[self.alice.user_id]
        )
        sync = await self.alice.sync()
        self.assertNotIn("invite", sync.get("rooms", {}))
        path = f"/directory/list/room/{q(room_id)}"
        await self.bob.ok("PUT", path, {"visibility": "public"})
        listed = await self.alice.ok("GET", "/publicRooms")
        self.assertEqual(listed["chunk"], [])
        messages = {user.user_id: {"*": {"a": 1}} for user in (self.alice, self.bob)}
        await self.bob.ok("PUT", "/sendToDevice/a.b/t1", {"messages": messages})
        sync = await self.alice.sync()
        self.assertEqual(sync.get("to_device", {}).get("events", []), [])
        sync = await self.bob.sync()
        self.assertEqual([each["type"] for each in sync["to_device"]["events"]], ["a.b"])
        # They come and go, or they would know; but say nothing by it.
        hall = await self.alice.create_room(preset="public_chat")
        await self.bob.ok("POST", f"/join/{q(hall)}", {"reason": "spam"})
        await self.bob.ok("POST", f"/rooms/{q(hall)}/leave", {"reason": "spam"})
        self.room_id = hall
        told = [
            event["content"]
            for event in await self.messages(self.alice)
            if event.get("state_key") == self.bob.user_id
        ]
        self.assertEqual([each["membership"] for each in told], ["leave", "join"])
        self.assertNotIn("spam", str(told))
        await self.bob.leave(room_id)

    async def test_what_waits_is_not_sent_either(self) -> None:
        """Delayed events, and the marks of a ban that outlasts a restart. Shows XC-4."""
        await self.prepare()
        self.room_id = await self.alice.create_room(preset="public_chat")
        await self.bob.join(self.room_id)
        path = (
            f"/_matrix/client/v3/rooms/{q(self.room_id)}/send/m.room.message/t1"
            "?org.matrix.msc4140.delay=100000"
        )
        delay_id = (await self.bob.ok("PUT", path, TEXT))["delay_id"]
        await self.ban()
        await self.server.restart()
        alice = self.alice.__class__(
            self.server, self.alice.user_id, self.alice.token, self.alice.device_id
        )
        bob = self.bob.__class__(self.server, self.bob.user_id, self.bob.token, self.bob.device_id)
        self.alice = alice
        before = await self.state()
        unstable = "/_matrix/client/unstable/org.matrix.msc4140/delayed_events"
        await bob.ok("POST", f"{unstable}/{delay_id}", {"action": "send"})
        await bob.send(self.room_id)
        self.assertEqual(await self.state(), before)

    async def test_no_other_room_takes_the_place_of_theirs(self) -> None:
        """Shows XC-4."""
        await self.prepare()
        self.room_id = await self.bob.create_room(preset="public_chat", room_version="11")
        await self.alice.join(self.room_id)
        before = await self.state()
        await self.ban()
        body = {"new_version": "12"}
        answer = await self.bob.ok("POST", f"/rooms/{q(self.room_id)}/upgrade", body)
        self.assertRegex(answer["replacement_room"], "^!")
        self.assertEqual(await self.state(), before)
        self.assertEqual(
            await self.bob.ok("GET", "/joined_rooms"), {"joined_rooms": [self.room_id]}
        )

    async def test_other_processes_know_at_once(self) -> None:
        """Those that have seen the user's token before. Shows XC-4."""
        if default_kind() != "postgres":
            raise SkipTest("several processes need PostgreSQL")
        url = migrated_database(self)
        name = f"bans{time.time_ns()}.test"
        await self.prepare(server_name=name, database_url=url, redis={"url": redis_url()})
        other = await make_server(
            self, server_name=name, database_url=url, redis={"url": redis_url()}
        )
        self.room_id = await self.alice.create_room(preset="public_chat")
        elsewhere = User(other, self.bob.user_id, self.bob.token, self.bob.device_id)
        await elsewhere.join(self.room_id)
        await self.ban()
        db = other.homeserver.db
        await db.position(fresh=True)  # it looks each second by itself
        before = await self.state()
        await elsewhere.send(self.room_id, "hidden")
        self.assertEqual(await self.state(), before)

    async def test_whom(self) -> None:
        """Shows XC-4."""
        await self.prepare()
        for method in ("POST", "DELETE"):
            await self.unknown(method, f"{V1}/users/@nobody:hearth.test/shadow_ban")
            path = f"{V1}/users/@x:elsewhere/shadow_ban"
            await self.refused("M_INVALID_PARAM", method, path)
        await self.ban()
        shown = await self.alice.ok("GET", f"/_synapse/admin/v2/users/{q(self.bob.user_id)}")
        self.assertTrue(shown["shadow_banned"])

    async def test_other_servers_hear_nothing(self) -> None:
        """Shows XC-4."""
        a, b = await make_federation(self)
        alice, bob = await make_admin(await a.register("alice")), await a.register("bob")
        carol = await b.register("carol")
        room_id = await alice.create_room(preset="public_chat", invite=[carol.user_id])
        await bob.join(room_id)
        await carol.join(room_id)
        await alice.ok("POST", f"{V1}/users/{q(bob.user_id)}/shadow_ban")
        await bob.send(room_id, "hidden")
        own = await bob.create_room()
        await bob.invite(own, carol.user_id)
        # Carol's server asks for whatever there is.
        seen = await carol.ok("GET", f"/rooms/{q(room_id)}/messages?dir=b&limit=100")
        self.assertNotIn("hidden", str(seen))
        self.assertNotIn(own, str(await carol.sync()))
