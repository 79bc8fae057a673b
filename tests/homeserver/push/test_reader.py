"""Who is to be told, and what finding it costs."""

from __future__ import annotations

from typing import Any

import structlog
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from homeserver.app import build
from homeserver.push import delivery, reader
from storage import push_queue
from tests.guards.counting import least
from tests.homeserver.push.test_delivery import PushTestCase
from tests.homeserver.rooms.test_unread import mention
from tests.support.client import Client
from tests.support.federation import make_federation
from tests.support.network import OfflineReactor, eventually
from tests.support.push_gateway import PushGateway
from tests.support.server import TestServer, make_server


class CostTest(TestCase):
    async def statements(self, server: TestServer, user: Any, room_id: str) -> int:
        """Statements that write a message, in the cheapest of some tries."""
        found = await least(server.homeserver.db, 5, lambda: user.send(room_id))
        await server.homeserver.services[reader.PushReader].catch_up()
        self.assertGreater(found.statements, 0)
        return found.statements

    async def test_sending_costs_nothing_more(self) -> None:
        """Who has no pusher pays nothing, and who sends pays for nobody's."""
        server = await make_server(self, push={"enabled": False})
        alice, bob = await server.register(), await server.register()
        carol = await server.register()
        room_id = await alice.create_room(preset="public_chat")
        await bob.join(room_id)
        nobody = await self.statements(server, alice, room_id)
        gateway = PushGateway(self)
        await gateway.add(carol)
        self.assertEqual(await self.statements(server, alice, room_id), nobody)
        waiting, _ = await server.homeserver.db.read(push_queue.totals)
        self.assertEqual(waiting, 0)
        await gateway.add(bob)
        self.assertEqual(await self.statements(server, alice, room_id), nobody)
        waiting, _ = await server.homeserver.db.read(push_queue.totals)
        self.assertEqual(waiting, 5)

    async def test_many_members_cost_no_rows(self) -> None:
        server = await make_server(self, push={"enabled": False})
        alice, gateway = await server.register(), PushGateway(self)
        room_id = await alice.create_room(preset="public_chat")
        users = [await server.register() for _ in range(10)]
        for user in users:
            await user.join(room_id)
        await gateway.add(users[0])
        await alice.send(room_id)
        await server.homeserver.services[reader.PushReader].catch_up()
        waiting, _ = await server.homeserver.db.read(push_queue.totals)
        self.assertEqual(waiting, 1)

    async def test_what_has_no_place_in_the_timeline(self) -> None:
        """Events that were rejected or soft-failed, and fetched history. Shows PSH-7."""
        server = await make_server(self, push={"enabled": False})
        alice, bob = await server.register(), await server.register()
        gateway = PushGateway(self)
        room_id = await alice.create_room(preset="public_chat")
        await bob.join(room_id)
        await gateway.add(bob)
        names = [await alice.send(room_id, mention(bob.user_id)) for _ in range(4)]

        def displace(txn: Any) -> None:
            sql = "UPDATE events SET pos = ?, status = ? WHERE event_id = ?"
            for values in ((None, 1, names[0]), (None, 2, names[1]), (-5, 0, names[2])):
                txn.execute(sql, values)

        await server.homeserver.db.write(displace)
        await server.homeserver.services[reader.PushReader].catch_up()
        found = await server.homeserver.db.read(
            lambda txn: txn.all(
                "SELECT e.event_id FROM push_queue q JOIN events e ON e.event_nid = q.event_nid"
            )
        )
        self.assertEqual(found, [(names[3],)])

    async def test_much_is_found_in_parts(self) -> None:
        self.patch(reader, "MAX_NOTICES", 2)
        self.patch(reader, "STEP", 3)
        server = await make_server(self, push={"enabled": False})
        alice, gateway = await server.register(), PushGateway(self)
        room_id = await alice.create_room(preset="public_chat")
        for number in range(3):
            user = await server.register()
            await user.join(room_id)
            await gateway.add(user, pushkey=f"k{number}")
        for _ in range(5):
            await alice.send(room_id)
        await server.homeserver.services[reader.PushReader].catch_up()
        waiting, _ = await server.homeserver.db.read(push_queue.totals)
        self.assertEqual(waiting, 15)

    async def test_nothing_is_read_while_nobody_has_a_pusher(self) -> None:
        server = await make_server(self)
        names: list[str] = []
        alice = await server.register()
        room_id = await alice.create_room()
        db: Any = server.homeserver.db
        observe, db._observe = db._observe, lambda timing: names.append(timing.name)
        await alice.send(room_id)
        self.assertIsNone(server.homeserver.services[reader.PushReader]._call)
        db._observe = observe
        self.assertNotIn("LogReader._look", names)


class FederationTest(TestCase):
    timeout = 60

    async def test_events_and_invites_of_other_servers(self) -> None:
        """Shows PSH-9, PSH-11."""
        self.patch(reader, "SOON_S", 0.01)
        gateway = PushGateway(self)
        trust = {"outgoing_http": PushGateway.trust()}
        here, there = await make_federation(self, each=[trust])
        bob, alice = await here.register("bob"), await there.register("alice")
        await gateway.add(bob)
        room_id = await alice.create_room(preset="private_chat", name="Far away")
        await alice.invite(room_id, bob.user_id)
        [invite] = await gateway.heard(1)
        self.assertEqual((invite["type"], invite["room_name"]), ("m.room.member", "Far away"))
        self.assertEqual((invite["room_id"], invite["user_is_target"]), (room_id, True))
        self.assertEqual(invite["counts"], {"unread": 1})
        await bob.join(room_id)
        event_id = await alice.send(room_id, {"ciphertext": "x"}, "m.room.encrypted")
        told = (await gateway.heard(2))[-1]
        self.assertEqual((told["event_id"], told["prio"]), (event_id, "high"))
        await alice.send(room_id, mention(bob.user_id))
        told = (await gateway.heard(3))[-1]
        self.assertEqual(told["devices"][0]["tweaks"], {"sound": "default", "highlight": True})


class ProcessesTest(PushTestCase):
    """Several processes of one server, without anything but the database between them."""

    async def test_every_event_once_and_in_order(self) -> None:
        """Shows PSH-11."""
        await self.meet()
        first = self.server.homeserver
        if first.config.database.is_sqlite:
            second = first
        else:
            second = await build(first.config, OfflineReactor(), structlog.get_logger())
            self.addCleanup(lambda: Deferred.fromCoroutine(second.stop()))
        client = Client(second.router)
        sent = []
        for number in range(20):
            user = self.alice
            if number % 2:
                user = type(self.alice)(
                    TestServer(second, client),
                    self.alice.user_id,
                    self.alice.token,
                    self.alice.device_id,
                )
                user._txns = self.alice._txns
            sent.append(await user.send(self.room_id, f"m{number}"))
        told = await self.gateway.heard(20)
        self.assertEqual([each["event_id"] for each in told], sent)

    async def test_what_a_killed_process_had_claimed(self) -> None:
        """Shows PSH-11."""
        await self.meet()
        self.patch(delivery, "FIRST_PAUSE_MS", 60_000)
        self.gateway.next_answers = [500]
        event_id = await self.alice.send(self.room_id)
        await eventually(lambda: not self.gateway.next_answers, "a failure")
        db = self.server.homeserver.db
        server = self.server.homeserver.services[delivery.PushDelivery]
        await eventually(lambda: server.under_way == 0, "the end of the attempt")

        def claimed(txn: Any) -> None:
            txn.execute("DELETE FROM push_gateways")
            txn.execute("UPDATE push_work SET due_ts = 0, attempts = 0")
            now = 10**14
            [work] = push_queue.claim(txn, "killed", now, 10, 10, {})
            assert push_queue.claim(txn, "other", now, 10, 10, {}) == []
            assert not push_queue.holds(txn, work.pusher_nid, "other")

        await db.write(claimed)
        await db.write(push_queue.release_all, "killed")
        server.wake()
        [told] = await self.gateway.heard(1)
        self.assertEqual(told["event_id"], event_id)
