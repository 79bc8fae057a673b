"""What closing an account does in the whole server."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from twisted.internet import reactor as installed_reactor
from twisted.trial.unittest import TestCase

from storage.database import sleep
from tests.support.server import User, make_server

reactor: Any = installed_reactor


def password_of(user: User) -> dict[str, object]:
    return {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": user.user_id},
        "password": "wonderland",
    }


class DeactivationTest(TestCase):
    timeout = 30

    async def test_leaves_and_rejects_rooms(self) -> None:
        """Shows ACC-1."""
        server = await make_server(self)
        alice, bob = await server.register("alice"), await server.register("bob")
        joined = await bob.create_room(preset="public_chat")
        await alice.join(joined)
        invited = await bob.create_room(invite=[alice.user_id])
        answer = await alice.ok(
            "POST", "/account/deactivate", {"auth": password_of(alice), "erase": True}
        )
        self.assertEqual(answer, {"id_server_unbind_result": "success"})
        # A job does it, soon after the answer.
        for room_id in (joined, invited):
            path = f"/rooms/{quote(room_id)}/state/m.room.member/{quote(alice.user_id)}"
            while (await bob.ok("GET", path))["membership"] != "leave":
                await sleep(reactor, 0.01)
        self.assertEqual((await alice.call("GET", "/sync")).status, 401)

    async def test_data_goes_with_erasure(self) -> None:
        """Shows ACC-1."""
        server = await make_server(self)
        alice = await server.register("alice")
        await alice.ok("PUT", f"/profile/{alice.user_id}/displayname", {"displayname": "Alice"})
        await alice.ok(
            "PUT", f"/user/{alice.user_id}/account_data/org.example.note", {"text": "secret"}
        )
        await alice.ok("POST", "/account/deactivate", {"auth": password_of(alice), "erase": True})
        db = server.homeserver.db

        def rows(txn: object, table: str) -> int:
            sql = f"SELECT COUNT(*) FROM {table} WHERE user_id = ?"
            return int(txn.value(sql, (alice.user_id,)))  # type: ignore[attr-defined]

        for table in ("profiles", "devices", "access_tokens", "account_data"):
            self.assertEqual(await db.read(rows, table), 0, table)


class ServerFilesTest(TestCase):
    async def test_every_endpoint_of_accounts_is_served(self) -> None:
        server = await make_server(self)
        alice = await server.register()
        for path in ("/login", "/account/whoami", "/devices", "/capabilities", "/voip/turnServer"):
            await alice.ok("GET", path)
        answer = await alice.ok("GET", "/.well-known/matrix/client")
        self.assertEqual(answer, {"m.homeserver": {"base_url": "https://hearth.test/"}})
