"""EDUs of what users of a whole homeserver do, as another server gets them."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any
from urllib.parse import quote

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from federation.client.requests import FederationClient
from federation.sender.sender import FederationSender
from homeserver.users.hooks import UserHooks
from storage import cross_signing, outgoing_to_device, room_servers, rooms
from storage.cross_signing import CrossSigningRow
from storage.transaction import Transaction
from tests.federation.sender.outside import Others
from tests.support.server import TestServer, User, make_server

ONE, TWO = "one.example", "two.example"


def _enter(txn: Transaction, room_id: str, servers: tuple[str, ...]) -> None:
    room_nid = rooms.nid(txn, room_id)
    assert room_nid is not None
    room_servers.put(txn, room_nid, dict.fromkeys(servers, 1))
    txn.execute("UPDATE rooms SET remote_servers = 1 WHERE room_nid = ?", (room_nid,))


class EduTest(TestCase):
    timeout = 60
    server: TestServer
    alice: User
    room: str

    async def begin(self, **config: Any) -> None:
        """A server with a user in a room, which another server is in too."""
        self.others = Others()
        self.server = await make_server(self, **config)
        self._divert()
        self.alice = await self.server.register("alice")
        self.room = await self.alice.create_room()
        await self.server.homeserver.db.write(_enter, self.room, (ONE,))

    def _divert(self) -> None:
        client: Any = self.server.homeserver.services[FederationClient]
        client.put_encoded = self.others.put_encoded
        client.probe = self.others.probe

    @property
    def sender(self) -> FederationSender:
        return self.server.homeserver.services[FederationSender]

    async def restart(self) -> None:
        await self.server.restart()
        self._divert()
        self.sender.heard_from(ONE)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for what must happen; the test times out otherwise."""
        while not condition():
            await deferLater(reactor, 0.02)

    async def edus(self, edu_type: str, number: int = 1) -> list[Any]:
        """The first EDUs of a type that come."""
        await self.until(lambda: len(self.others.edus(ONE, edu_type)) >= number)
        return self.others.edus(ONE, edu_type)

    async def test_receipts(self) -> None:
        """Shows TXN-9."""
        await self.begin()
        room = quote(self.room)
        hidden, root = await self.alice.send(self.room), await self.alice.send(self.room)
        thread = {
            "msgtype": "m.text",
            "body": "in it",
            "m.relates_to": {"rel_type": "m.thread", "event_id": root},
        }
        reply = await self.alice.send(self.room, thread)
        path = f"/rooms/{room}/receipt"
        await self.alice.ok("POST", f"{path}/m.read.private/{quote(hidden)}", {})
        await self.alice.ok("POST", f"{path}/m.read/{quote(root)}", {})
        await self.alice.ok("POST", f"{path}/m.read/{quote(reply)}", {"thread_id": root})
        await self.until(
            lambda: any(
                "thread_id" in edu[self.room]["m.read"][self.alice.user_id]["data"]
                for edu in self.others.edus(ONE, "m.receipt")
            )
        )
        found = self.others.edus(ONE, "m.receipt")
        read = [edu[self.room]["m.read"][self.alice.user_id] for edu in found]
        self.assertEqual([each["event_ids"] for each in read], [[root], [reply]])
        self.assertEqual([each["data"].get("thread_id") for each in read], [None, root])
        self.assertNotIn(hidden, str(found))

    async def test_typing(self) -> None:
        await self.begin()
        path = f"/rooms/{quote(self.room)}/typing/{quote(self.alice.user_id)}"
        await self.alice.ok("PUT", path, {"typing": True, "timeout": 30_000})
        await self.edus("m.typing")
        await self.alice.ok("PUT", path, {"typing": False})
        told = {"room_id": self.room, "user_id": self.alice.user_id}
        self.assertEqual(
            await self.edus("m.typing", 2),
            [{**told, "typing": True}, {**told, "typing": False}],
        )

    async def test_presence(self) -> None:
        await self.begin()
        path = f"/presence/{quote(self.alice.user_id)}/status"
        await self.alice.ok("PUT", path, {"presence": "online", "status_msg": "here"})

        def updates() -> list[Any]:
            return [each for edu in self.others.edus(ONE, "m.presence") for each in edu["push"]]

        await self.until(lambda: any(each.get("status_msg") == "here" for each in updates()))
        update = updates()[-1]
        self.assertEqual((update["user_id"], update["presence"]), (self.alice.user_id, "online"))
        self.assertIn("last_active_ago", update)
        self.assertEqual(self.others.to(TWO), [])

    async def test_no_presence_where_there_is_none(self) -> None:
        await self.begin(presence={"enabled": False})
        path = f"/presence/{quote(self.alice.user_id)}/status"
        await self.alice.ok("PUT", path, {"presence": "online"})
        await self.alice.send(self.room)
        await deferLater(reactor, 2.5)
        self.assertEqual(self.others.edus(ONE, "m.presence"), [])

    async def test_devices_new_renamed_deleted(self) -> None:
        """Shows TXN-11."""
        await self.begin()

        def told() -> list[Any]:
            return self.others.edus(ONE, "m.device_list_update")

        def last() -> Any:
            of_second = [edu for edu in told() if edu["device_id"] == "SECOND"]
            return of_second[-1] if of_second else {}

        second = await self._log_in("SECOND")
        await self.until(last)
        self.assertNotIn("deleted", last())
        await self.alice.ok("PUT", "/devices/SECOND", {"display_name": "Telephone"})
        await self.until(lambda: last().get("device_display_name") == "Telephone")
        self.assertNotIn("deleted", last())
        await second.ok("POST", "/logout", {})
        await self.until(lambda: last().get("deleted"))
        self.assertEqual({edu["user_id"] for edu in told()}, {self.alice.user_id})
        for before, after in pairwise(told()):
            self.assertEqual(after["prev_id"], [before["stream_id"]])

    async def test_many_updates_while_the_server_is_down(self) -> None:
        """Shows TXN-4, TXN-11, TXN-13."""
        await self.begin()
        first = await self._log_in("D0")
        known = [edu["stream_id"] for edu in await self.edus("m.device_list_update", 1)]
        self.others.down.add(ONE)
        for number in range(1, 26):
            await self._log_in(f"D{number}")
        await first.ok("POST", "/logout", {})
        await self.restart()
        self.others.down.clear()
        wanted = {f"D{number}" for number in range(26)}

        def heard() -> dict[str, Any]:
            found = self.others.edus(ONE, "m.device_list_update")
            return {edu["device_id"]: edu for edu in found if edu["stream_id"] not in known}

        while set(heard()) != wanted:
            self.sender.heard_from(ONE)
            await deferLater(reactor, 0.05)
        self.assertTrue(heard()["D0"]["deleted"])
        for edu in self.others.edus(ONE, "m.device_list_update"):
            if edu["stream_id"] not in known:
                self.assertLessEqual(set(edu["prev_id"]), set(known))
                known.append(edu["stream_id"])

    async def test_signing_keys(self) -> None:
        """Shows TXN-14."""
        await self.begin()
        user_id = self.alice.user_id

        def change(txn: Transaction) -> None:
            for usage in ("master", "self_signing", "user_signing"):
                keys = {"user_id": user_id, "usage": [usage], "keys": {f"ed25519:{usage}": usage}}
                cross_signing.put(txn, CrossSigningRow(user_id, usage, usage, json.dumps(keys)))
            for hook in self.server.homeserver.services[UserHooks].signing_keys_changed:
                hook(txn, user_id)

        await self.server.homeserver.db.write(change)
        [edu] = await self.edus("m.signing_key_update")
        self.assertEqual(edu["user_id"], user_id)
        self.assertEqual(edu["master_key"]["usage"], ["master"])
        self.assertEqual(edu["self_signing_key"]["keys"], {"ed25519:self_signing": "self_signing"})
        self.assertEqual(set(edu), {"user_id", "master_key", "self_signing_key"})

    async def test_messages_for_devices(self) -> None:
        """Shows TXN-10."""
        await self.begin()
        messages = {
            f"@u:{ONE}": {"A": {"n": 1}, "B": {"n": 2}},
            f"@v:{ONE}": {"*": {"n": 3}},
            f"@w:{TWO}": {"C": {"n": 4}},
        }
        for _ in range(2):
            await self.alice.ok("PUT", "/sendToDevice/m.x/t1", {"messages": messages})
        [edu] = await self.edus("m.direct_to_device")
        message_id = edu.pop("message_id")
        self.assertLessEqual(len(message_id), 32)
        self.assertEqual(
            edu,
            {
                "sender": self.alice.user_id,
                "type": "m.x",
                "messages": {
                    f"@u:{ONE}": {"A": {"n": 1}, "B": {"n": 2}},
                    f"@v:{ONE}": {"*": {"n": 3}},
                },
            },
        )
        await self.until(lambda: self.others.edus(TWO, "m.direct_to_device"))

    async def test_messages_for_devices_of_a_server_that_is_down(self) -> None:
        """Shows TXN-4, TXN-10."""
        await self.begin()
        self.others.down.add(ONE)
        for number in range(120):
            body = {"messages": {f"@u:{ONE}": {"A": {"n": number}}}}
            await self.alice.ok("PUT", f"/sendToDevice/m.x/t{number}", body)
        await self.until(lambda: self.others.attempts)
        await self.restart()
        self.others.down.clear()
        while len(self.others.edus(ONE, "m.direct_to_device")) < 120:
            self.sender.heard_from(ONE)
            await deferLater(reactor, 0.05)
        found = self.others.edus(ONE, "m.direct_to_device")
        numbers = [edu["messages"][f"@u:{ONE}"]["A"]["n"] for edu in found]
        self.assertEqual(list(dict.fromkeys(numbers)), list(range(120)))
        self.assertTrue(all(len(sent.content["edus"]) <= 100 for sent in self.others.taken))
        await self.server.homeserver.stop()

    async def test_messages_for_many_devices_are_divided(self) -> None:
        """Shows TXN-16."""
        await self.begin()
        users = {f"@u{n}:{ONE}": {"A": {"x": "y" * 20_000}} for n in range(40)}
        await self.alice.ok("PUT", "/sendToDevice/m.x/t1", {"messages": users})
        await self.until(
            lambda: (
                sum(len(edu["messages"]) for edu in self.others.edus(ONE, "m.direct_to_device"))
                == 40
            )
        )
        found = self.others.edus(ONE, "m.direct_to_device")
        self.assertLessEqual(
            max(len(str(edu)) for edu in found), outgoing_to_device.MAX_BYTES + 500
        )
        self.assertEqual(len({edu["message_id"] for edu in found}), len(found))
        self.assertTrue(all(len(edu["message_id"]) <= 32 for edu in found))
        self.assertLess(max(len(sent.body) for sent in self.others.taken), 400_000)

    async def _log_in(self, device_id: str) -> User:
        body = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": "alice"},
            "password": "wonderland",
            "device_id": device_id,
        }
        answer = await self.alice.ok("POST", "/login", body)
        return User(self.server, self.alice.user_id, answer["access_token"], device_id)
