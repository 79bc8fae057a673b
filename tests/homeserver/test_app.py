"""The whole homeserver, put together."""

from __future__ import annotations

from pathlib import Path

import structlog
from twisted.trial.unittest import TestCase

from homeserver.app import build
from homeserver.rooms.departures import Departures
from homeserver.web.endpoint import Auth
from storage import jobs, processes
from storage.transaction import Transaction
from tests.support.databases import migrated_database
from tests.support.network import OfflineReactor
from tests.support.server import User, make_server, test_config


class WholeServerTest(TestCase):
    async def test_a_new_user_is_who_they_say(self) -> None:
        server = await make_server(self)
        alice = await server.register("alice")
        self.assertEqual(
            await alice.ok("GET", "/account/whoami"),
            {"user_id": "@alice:hearth.test", "device_id": alice.device_id, "is_guest": False},
        )

    async def test_two_users_meet_in_a_room(self) -> None:
        server = await make_server(self)
        alice, bob = await server.register("alice"), await server.register("bob")
        room_id = await alice.create_room(preset="private_chat", name="Tea")
        self.assertEqual((await bob.call("POST", f"/join/{room_id}", {})).status, 403)
        await alice.invite(room_id, bob.user_id)
        await bob.join(room_id)
        await bob.send(room_id, "hello")
        self.assertEqual(await bob.ok("GET", "/joined_rooms"), {"joined_rooms": [room_id]})

    async def test_a_server_that_takes_nothing_new(self) -> None:
        """Shows HTTP-13."""
        url = migrated_database(self)
        first = await make_server(self, database_url=url)
        alice = await first.register("alice")
        room_id = await alice.create_room()
        since = (await alice.sync())["next_batch"]
        contact = "mailto:admin@hearth.test"
        paused = await make_server(
            self, database_url=url, read_only={"enabled": True, "admin_contact": contact}
        )
        reader = User(paused, alice.user_id, alice.token, alice.device_id)
        for method, path, body in (
            ("PUT", f"/rooms/{room_id}/send/m.room.message/1", {"body": "x"}),
            ("POST", "/createRoom", {}),
            ("POST", f"/join/{room_id}", {}),
        ):
            status, answer = await reader.call(method, path, body)
            self.assertEqual(status, 403)
            self.assertEqual(answer["errcode"], "M_RESOURCE_LIMIT_EXCEEDED")
            self.assertEqual(answer["admin_contact"], contact)
        await reader.sync(since)
        await reader.ok("GET", f"/rooms/{room_id}/state")
        await reader.ok("POST", "/logout", {})

    async def test_requests_of_servers_have_limits_of_their_own(self) -> None:
        """Shows HTTP-10."""
        server = await make_server(self)
        classes = {"federation", "federation_heavy"}
        for declaration in server.homeserver.router.declarations:
            if declaration.auth is Auth.FEDERATION:
                self.assertIn(declaration.rate, classes, declaration.name)
            else:
                self.assertNotIn(declaration.rate, classes, declaration.name)

    async def test_one_for_a_command_does_nothing_by_itself(self) -> None:
        """It is no process of the server, holds no leases, and leaves jobs to the server."""
        directory = Path(self.mktemp()).resolve()
        config = test_config(directory, migrated_database(self))
        hs = await build(config, OfflineReactor(), structlog.get_logger(), serving=False)
        try:
            self.assertEqual(await hs.db.read(processes.running), [])
            await hs.db.write(jobs.enqueue, Departures.KIND, {}, 1)
            hs.feed.missed()
            self.assertEqual(await hs.db.read(_leases_and_claims), (0, 0))
        finally:
            await hs.stop()


def _leases_and_claims(txn: Transaction) -> tuple[int, int]:
    leases = txn.value("SELECT count(*) FROM leases")
    return leases, txn.value("SELECT count(*) FROM jobs WHERE attempts > 0")
