"""What other servers tell of their users, as local users' clients get it."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from federation.server.edus.registry import EduHandlers
from federation.server.edus.users import MAX_PRESENCE
from homeserver.core import presence as presence_rules
from homeserver.core.presence import Presence
from homeserver.rooms import typing as typing_module
from storage.errors import DatabaseUnavailable
from storage.transaction import Transaction
from tests.support.remote_users import put_member
from tests.support.room_case import RoomTestCase, log_in

ORIGIN = "other.example"
CAROL = f"@carol:{ORIGIN}"
DAVE = "@dave:third.example"
JUNK: tuple[Any, ...] = (None, 1, 1.5, True, "x", "\x00", [], {}, [[]], {"a": None}, "x" * 70_000)


def edu(edu_type: str, content: Any) -> Any:
    return {"edu_type": edu_type, "content": content}


class EduCase(RoomTestCase):
    """Alice's public room with Carol of another server in it."""

    def setUp(self) -> Any:
        return Deferred.fromCoroutine(self.prepare())

    async def prepare(self) -> None:
        await self.start()
        self.db = self.server.homeserver.db
        self.edus = self.server.homeserver.services[EduHandlers]
        await put_member(self.db, self.room_id, CAROL)
        await put_member(self.db, self.room_id, DAVE)

    async def tell(self, *edus: Any, origin: str = ORIGIN) -> None:
        await self.edus.receive(origin, edus)

    async def deny(self, server: str) -> None:
        await self.alice.set_state(
            self.room_id, "m.room.server_acl", {"allow": ["*"], "deny": [server]}
        )

    async def ephemeral(self, edu_type: str) -> Any:
        """The content of the room's ephemeral event of a type in Alice's first sync."""
        rooms = (await self.alice.sync())["rooms"]["join"]
        events = rooms[self.room_id].get("ephemeral", {}).get("events", [])
        return next((event["content"] for event in events if event["type"] == edu_type), None)


class TypingEduTest(EduCase):
    async def typing(self) -> list[str]:
        users: list[str] = ((await self.ephemeral("m.typing")) or {"user_ids": []})["user_ids"]
        return users

    def said(self, user_id: str = CAROL, is_typing: Any = True, **more: Any) -> Any:
        content = {"room_id": self.room_id, "user_id": user_id, "typing": is_typing}
        return edu("m.typing", {**content, **more})

    async def test_a_remote_user_types(self) -> None:
        """Shows TXN-8."""
        await self.tell(self.said())
        self.assertEqual(await self.typing(), [CAROL])
        await self.tell(self.said(is_typing=False))
        self.assertEqual(await self.typing(), [])

    async def test_the_last_of_a_transaction_holds(self) -> None:
        await self.tell(self.said(), self.said(is_typing=False), self.said(DAVE))
        self.assertEqual(await self.typing(), [])

    async def test_only_the_users_own_server_may_say_so(self) -> None:
        """Shows TXN-8."""
        await self.tell(self.said(DAVE), self.said(self.alice.user_id))
        await self.tell(self.said(), origin="third.example")
        self.assertEqual(await self.typing(), [])

    async def test_only_joined_users_type(self) -> None:
        """Shows TXN-8."""
        await put_member(self.db, self.room_id, CAROL, "leave")
        await self.tell(self.said(), self.said(f"@nobody:{ORIGIN}"))
        self.assertEqual(await self.typing(), [])

    async def test_a_server_that_the_room_denies(self) -> None:
        """Shows TXN-15, ACL-3."""
        await self.deny(ORIGIN)
        await self.tell(self.said())
        await self.tell(self.said(DAVE), origin="third.example")
        self.assertEqual(await self.typing(), [DAVE])

    async def test_typing_ends_by_itself(self) -> None:
        self.patch(typing_module, "REMOTE_TIMEOUT", 0)
        await self.tell(self.said())
        await self.server.homeserver.services[typing_module.Typing]._expire_all()
        self.assertEqual(await self.typing(), [])

    async def test_rubbish(self) -> None:
        for junk in JUNK:
            await self.tell(junk, edu("m.typing", junk), {"edu_type": junk, "content": {}})
            await self.tell(self.said(junk), self.said(room_id=junk), self.said(is_typing=junk))
        self.assertEqual(await self.typing(), [CAROL])  # True is among the rubbish.

    async def test_unknown_rooms_cost_little(self) -> None:
        statements = []
        read = self.db.read

        async def counted(fn: Any, *args: Any, **options: Any) -> Any:
            def run(txn: Transaction) -> Any:
                result = fn(txn, *args, **options)
                statements.append(txn.statements)
                return result

            return await read(run)

        self.patch(self.db, "read", counted)
        told = [self.said(room_id=f"!r{number}:{ORIGIN}") for number in range(100)]
        await self.tell(*told)
        self.assertLessEqual(sum(statements), 3)

    async def test_unknown_types_are_ignored(self) -> None:
        """Shows TXN-7."""
        await self.tell(edu("org.example.unknown", {"x": 1}), self.said())
        self.assertEqual(await self.typing(), [CAROL])


class ReceiptEduTest(EduCase):
    async def prepare(self) -> None:
        await super().prepare()
        self.first = await self.alice.send(self.room_id, "one")
        self.second = await self.alice.send(self.room_id, "two")

    def said(self, *event_ids: Any, user_id: str = CAROL, kind: str = "m.read", **data: Any) -> Any:
        receipt = {"event_ids": list(event_ids), "data": {"ts": 1000, **data}}
        return edu("m.receipt", {self.room_id: {kind: {user_id: receipt}}})

    async def receipts(self) -> dict[str, Any]:
        """Event IDs to what Carol and Dave have read there."""
        content = await self.ephemeral("m.receipt") or {}
        return {
            event_id: users
            for event_id, kinds in content.items()
            if (users := {u: d for u, d in kinds.get("m.read", {}).items() if u in (CAROL, DAVE)})
        }

    async def test_a_remote_user_reads(self) -> None:
        """Shows TXN-9."""
        await self.tell(self.said(self.first))
        self.assertEqual(await self.receipts(), {self.first: {CAROL: {"ts": 1000}}})
        await self.tell(self.said(self.second, self.first))
        self.assertEqual(await self.receipts(), {self.second: {CAROL: {"ts": 1000}}})
        await self.tell(self.said(self.first))
        self.assertEqual(await self.receipts(), {self.second: {CAROL: {"ts": 1000}}})

    async def test_threads(self) -> None:
        """Shows TXN-9."""
        await self.tell(self.said(self.first, thread_id="main"))
        await self.tell(self.said(self.second, thread_id=self.first))
        found = await self.receipts()
        self.assertEqual(found[self.first][CAROL]["thread_id"], "main")
        self.assertEqual(found[self.second][CAROL]["thread_id"], self.first)

    async def test_only_public_receipts_of_own_users(self) -> None:
        """Shows TXN-9."""
        await self.tell(self.said(self.first, kind="m.read.private"))
        await self.tell(self.said(self.first, kind="m.fully_read"))
        await self.tell(self.said(self.first, user_id=DAVE))
        await self.tell(self.said(self.first), origin="third.example")
        await self.tell(self.said(self.first, user_id=f"@nobody:{ORIGIN}"))
        self.assertEqual(await self.receipts(), {})

    async def test_a_server_that_the_room_denies(self) -> None:
        """Shows TXN-15, ACL-3."""
        await self.deny(ORIGIN)
        await self.tell(self.said(self.first))
        self.assertEqual(await self.receipts(), {})

    async def test_rubbish(self) -> None:
        """Events and threads must be of the room; the time must be possible."""
        elsewhere = await self.alice.send(await self.alice.create_room(), "x")
        for junk in (*JUNK, elsewhere, "$unknown"):
            if junk != []:
                await self.tell(self.said(junk))
            if junk is not None:
                await self.tell(self.said(self.first, thread_id=junk))
            await self.tell(edu("m.receipt", {self.room_id: junk}))
            await self.tell(edu("m.receipt", {self.room_id: {"m.read": {CAROL: junk}}}))
            await self.tell(edu("m.receipt", {str(junk): {"m.read": {CAROL: {}}}}))
        self.assertEqual(await self.receipts(), {})
        await self.tell(self.said(self.first, ts="soon"))
        ts = (await self.receipts())[self.first][CAROL]["ts"]
        self.assertGreater(ts, 1_000_000)


class PresenceEduTest(EduCase):
    def said(self, user_id: str = CAROL, presence: Any = "online", **more: Any) -> Any:
        return edu("m.presence", {"push": [{"user_id": user_id, "presence": presence, **more}]})

    async def presence(self, user_id: str = CAROL) -> Any:
        return await self.alice.ok("GET", f"/presence/{user_id}/status")

    async def test_presence_of_remote_users(self) -> None:
        await self.tell(self.said(status_msg="here", last_active_ago=5000, currently_active=True))
        content = await self.presence()
        self.assertEqual(
            (content["presence"], content["status_msg"], content["currently_active"]),
            ("online", "here", True),
        )
        self.assertGreaterEqual(content["last_active_ago"], 5000)
        events = (await self.alice.sync())["presence"]["events"]
        self.assertIn(CAROL, [event["sender"] for event in events])
        await self.tell(self.said(presence="offline"))
        self.assertEqual((await self.presence())["presence"], "offline")

    async def test_only_of_its_own_users(self) -> None:
        await self.tell(self.said(), origin="third.example")
        await self.tell(self.said(self.alice.user_id, "unavailable"))
        self.assertEqual((await self.presence())["presence"], "offline")
        self.assertNotEqual((await self.presence(self.alice.user_id))["presence"], "unavailable")

    async def test_only_of_users_in_shared_rooms(self) -> None:
        stranger = f"@stranger:{ORIGIN}"
        await self.tell(self.said(stranger))
        await put_member(self.db, self.room_id, stranger)
        self.assertEqual((await self.presence(stranger))["presence"], "offline")

    async def test_rubbish(self) -> None:
        for junk in JUNK:
            await self.tell(edu("m.presence", {"push": junk}), edu("m.presence", {"push": [junk]}))
            await self.tell(self.said(junk), self.said(presence=junk))
        self.assertEqual((await self.presence())["presence"], "offline")
        await self.tell(self.said(status_msg=[], last_active_ago=2**70, currently_active="yes"))
        self.assertEqual(await self.presence(), {"presence": "online", "currently_active": False})

    async def test_many_in_one_transaction(self) -> None:
        many = [{"user_id": f"@u{n}:{ORIGIN}", "presence": "online"} for n in range(MAX_PRESENCE)]
        last = {"user_id": CAROL, "presence": "online"}
        await self.tell(edu("m.presence", {"push": [*many, last]}))
        self.assertEqual((await self.presence())["presence"], "offline")

    def test_a_silent_server(self) -> None:
        online = Presence("online", None, 1000, 1000, True)
        soon = 1000 + presence_rules.REMOTE_OFFLINE_AFTER - 1
        self.assertEqual(presence_rules.remote_passed(online, soon), online)
        self.assertEqual(presence_rules.remote_passed(online, soon + 1).state, "offline")


class ToDeviceEduTest(EduCase):
    def said(self, devices: Any, message_id: str = "m1", sender: str = CAROL) -> Any:
        content = {
            "sender": sender,
            "type": "m.room_key",
            "message_id": message_id,
            "messages": {self.alice.user_id: devices},
        }
        return edu("m.direct_to_device", content)

    async def waiting(self) -> list[Any]:
        events: list[Any] = (await self.alice.sync()).get("to_device", {}).get("events", [])
        return events

    async def test_to_one_device(self) -> None:
        """Shows TXN-10."""
        await self.tell(self.said({self.alice.device_id: {"n": 1}, "OTHER": {"n": 2}}))
        self.assertEqual(
            await self.waiting(), [{"sender": CAROL, "type": "m.room_key", "content": {"n": 1}}]
        )

    async def test_to_all_devices(self) -> None:
        """Shows TXN-10."""
        other = await log_in(self.server, self.alice)
        await self.tell(self.said({"*": {"n": 1}}))
        for user in (self.alice, other):
            self.assertEqual(len((await user.sync())["to_device"]["events"]), 1)

    async def test_a_message_comes_once(self) -> None:
        """Shows TXN-10."""
        device = self.alice.device_id
        await self.tell(self.said({device: {"n": 1}}), self.said({device: {"n": 2}}, "m2"))
        await self.tell(self.said({device: {"n": 1}}), self.said({device: {"n": 2}}, "m2"))
        self.assertEqual([m["content"]["n"] for m in await self.waiting()], [1, 2])

    async def test_a_waiting_sync_is_woken(self) -> None:
        """Shows TXN-10."""
        since = (await self.alice.sync())["next_batch"]
        waiting = Deferred.fromCoroutine(self.alice.sync(since, timeout=60_000))
        await self.tell(self.said({self.alice.device_id: {"n": 1}}))
        self.assertEqual(len((await waiting)["to_device"]["events"]), 1)

    async def test_only_of_its_own_users(self) -> None:
        """Shows TXN-10."""
        device = self.alice.device_id
        await self.tell(self.said({device: {}}, sender=DAVE))
        await self.tell(self.said({device: {}}, sender=self.bob.user_id))
        self.assertEqual(await self.waiting(), [])

    async def test_rubbish(self) -> None:
        for junk in JUNK:
            await self.tell(edu("m.direct_to_device", junk))
            if junk != {} and junk != {"a": None}:
                await self.tell(self.said({self.alice.device_id: junk}))
            for key in ("sender", "type", "message_id", "messages"):
                if (key, junk) in (("type", "x"), ("message_id", "x")):
                    continue
                said = self.said({self.alice.device_id: {}})
                said["content"][key] = junk
                await self.tell(said)
        await self.tell(self.said({self.alice.device_id: {"x": "y" * 70_000}}))
        self.assertEqual(await self.waiting(), [])


class RegistryTest(TestCase):
    async def test_a_failing_handler_concerns_its_type_only(self) -> None:
        """Shows TXN-7."""
        told: list[Any] = []

        async def fail(origin: str, content: Any) -> None:
            if content:
                raise ValueError("on purpose")
            told.append(content)

        async def note(origin: str, content: Any) -> None:
            told.append(content)

        edus = EduHandlers(Clock())
        edus.add_single("a", fail)
        edus.add_single("b", note)
        several = [edu("a", {"n": 1}), edu("a", {}), edu("b", {"n": 2}), edu("c", {})]
        await edus.receive(ORIGIN, several)
        self.assertEqual(told, [{}, {"n": 2}])

    async def test_a_database_that_is_away_fails_the_transaction(self) -> None:
        async def fail(origin: str, contents: Any) -> None:
            raise DatabaseUnavailable("on purpose")

        edus = EduHandlers(Clock())
        edus.add("a", fail)
        with self.assertRaises(DatabaseUnavailable):
            await edus.receive(ORIGIN, [edu("a", {})])

    def test_what_must_not_be_lost_is_waited_for(self) -> None:
        clock = Clock()
        stored: Deferred[None] = Deferred()

        async def wait(origin: str, contents: Any) -> None:
            await stored

        edus = EduHandlers(clock)
        edus.add("a", wait)
        done = Deferred.fromCoroutine(edus.receive(ORIGIN, [edu("a", {})]))
        clock.advance(3600)
        self.assertNoResult(done)
        stored.callback(None)
        self.successResultOf(done)

    def test_a_slow_handler_does_not_hold_the_answer(self) -> None:
        clock = Clock()
        never: Deferred[None] = Deferred()

        async def wait(origin: str, contents: Any) -> None:
            await never

        edus = EduHandlers(clock)
        edus.add("a", wait, may_be_lost=True)
        done = Deferred.fromCoroutine(edus.receive(ORIGIN, [edu("a", {})]))
        self.assertNoResult(done)
        clock.advance(60)
        self.successResultOf(done)
