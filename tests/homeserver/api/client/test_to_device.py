"""Messages from device to device, from outside."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from tests.support.room_case import log_in
from tests.support.server import SERVER_NAME, TestServer, User, make_server


async def send(
    sender: User, txn_id: str, messages: dict[str, Any], event_type: str = "m.test"
) -> None:
    """Send messages to devices."""
    await sender.ok("PUT", f"/sendToDevice/{event_type}/{txn_id}", {"messages": messages})


async def received(user: User, since: str | None = None) -> list[Any]:
    """Contents of the messages in one sync of the device."""
    answer = await user.sync(since)
    return [event["content"] for event in answer.get("to_device", {}).get("events", [])]


class SendToDeviceTest(TestCase):
    timeout = 60

    async def two(self) -> tuple[TestServer, User, User]:
        server = await make_server(self)
        return server, await server.register("alice"), await server.register("bob")

    async def test_one_device(self) -> None:
        """Shows E2E-14."""
        _, alice, bob = await self.two()
        other = await log_in(bob.server, bob)
        await send(alice, "t", {bob.user_id: {bob.device_id: {"a": [1, "ü"]}}}, "m.room_key")
        answer = await bob.sync()
        self.assertEqual(
            answer["to_device"]["events"],
            [{"type": "m.room_key", "sender": alice.user_id, "content": {"a": [1, "ü"]}}],
        )
        self.assertEqual(await received(other), [])
        self.assertEqual(await received(alice), [])

    async def test_all_devices(self) -> None:
        """`*` is every device, one that is named as well gets its own. Shows E2E-14."""
        _, alice, bob = await self.two()
        other = await log_in(bob.server, bob)
        await send(alice, "t", {bob.user_id: {"*": {"n": 1}, other.device_id: {"n": 2}}})
        self.assertEqual(await received(bob), [{"n": 1}])
        self.assertEqual(await received(other), [{"n": 2}])

    async def test_own_devices(self) -> None:
        """A user may send to their own devices, also the sending one."""
        _, alice, _ = await self.two()
        other = await log_in(alice.server, alice)
        await send(alice, "t", {alice.user_id: {"*": {"n": 1}}})
        self.assertEqual(await received(alice), [{"n": 1}])
        self.assertEqual(await received(other), [{"n": 1}])

    async def test_unknown_recipients(self) -> None:
        """Shows E2E-14."""
        _, alice, bob = await self.two()
        messages = {
            bob.user_id: {"NOWHERE": {"n": 1}, bob.device_id: {"n": 2}},
            f"@nobody:{SERVER_NAME}": {"*": {"n": 3}, "DEVICE": {"n": 4}},
            "@bob:elsewhere.test": {"*": {"n": 5}, bob.device_id: {"n": 6}},
            alice.user_id: {},
        }
        await send(alice, "t", messages)
        await send(alice, "t2", {bob.user_id: {"NOWHERE": {"n": 7}}})
        await send(alice, "t3", {})
        later = await log_in(bob.server, bob, "NOWHERE")
        self.assertEqual(await received(later), [])
        self.assertEqual(await received(bob), [{"n": 2}])

    async def test_repeated_transaction(self) -> None:
        """The same request of one device counts once. Shows E2E-14."""
        _, alice, bob = await self.two()
        alice_too = await log_in(alice.server, alice)
        target = {bob.user_id: {bob.device_id: {"n": 1}}}
        await send(alice, "t", target)
        await send(alice, "t", target)
        self.assertEqual(await received(bob), [{"n": 1}])
        # Another type, another device: other transactions.
        await send(alice, "t", {bob.user_id: {bob.device_id: {"n": 2}}}, "m.other")
        await send(alice_too, "t", {bob.user_id: {bob.device_id: {"n": 3}}})
        self.assertEqual(await received(bob), [{"n": 1}, {"n": 2}, {"n": 3}])

    async def test_repeated_transaction_at_the_same_time(self) -> None:
        """A client that repeats a request before it was answered. Shows E2E-14."""
        _, alice, bob = await self.two()
        target = {bob.user_id: {bob.device_id: {"n": 1}}}
        await gatherResults([Deferred.fromCoroutine(send(alice, "t", target)) for _ in range(5)])
        self.assertEqual(await received(bob), [{"n": 1}])

    async def test_gone_with_the_device(self) -> None:
        """Shows E2E-14."""
        _, alice, bob = await self.two()
        other = await log_in(bob.server, bob, "PHONE")
        await send(alice, "t", {bob.user_id: {"*": {"n": 1}}})
        await other.ok("POST", "/logout", {})
        other = await log_in(bob.server, bob, "PHONE")
        self.assertEqual(await received(other), [])
        self.assertEqual(await received(bob), [{"n": 1}])
        # Logging in anew on the same device keeps what waits.
        bob = await log_in(bob.server, bob, bob.device_id)
        self.assertEqual(await received(bob), [{"n": 1}])

    async def test_guests(self) -> None:
        """Guests may send (client-server API, "Guest Access")."""
        server, _, bob = await self.two()
        status, answer = await server.client.post(
            "/_matrix/client/v3/register", {}, query={"kind": "guest"}
        )
        self.assertEqual(status, 200, answer)
        guest = User(server, answer["user_id"], answer["access_token"], answer["device_id"])
        await send(guest, "t", {bob.user_id: {"*": {"n": 1}}})
        self.assertEqual(await received(bob), [{"n": 1}])

    async def refused(
        self, user: User, body: Any, status: int, errcode: str, event_type: str = "m.test"
    ) -> None:
        answer = await user.call("PUT", f"/sendToDevice/{event_type}/t", body)
        self.assertEqual((answer.status, answer.body["errcode"]), (status, errcode), body)

    async def test_wrong_bodies(self) -> None:
        """They are refused, and nothing of them is sent."""
        _, alice, bob = await self.two()
        device = {bob.device_id: {"n": 1}}
        body: Any
        content: Any
        for body in ({"messages": 1}, {"messages": {bob.user_id: 1}}):
            await self.refused(alice, body, 400, "M_BAD_JSON")
        for content in (1, None, "text", [{}], {"big": 2**53}):
            body = {"messages": {bob.user_id: {"*": content}}}
            await self.refused(alice, body, 400, "M_BAD_JSON")
        await self.refused(alice, {}, 400, "M_MISSING_PARAM")
        await self.refused(
            alice, {"messages": {bob.user_id: {"*": {"nul": "\0"}}}}, 400, "M_INVALID_PARAM"
        )
        for name in ("bob", "", "@bob", "#bob:hearth.test", "@" + "b" * 255 + ":hearth.test"):
            body = {"messages": {bob.user_id: device, name: device}}
            await self.refused(alice, body, 400, "M_INVALID_PARAM")
        messages = {"messages": {bob.user_id: device}}
        await self.refused(alice, messages, 400, "M_INVALID_PARAM", "t" * 256)
        large = {"messages": {bob.user_id: {bob.device_id: {"text": "x" * 65_536}}}}
        await self.refused(alice, large, 413, "M_TOO_LARGE")
        self.assertEqual(await received(bob), [])
        # A refused request is no transaction.
        await send(alice, "t", {bob.user_id: device})
        self.assertEqual(await received(bob), [{"n": 1}])

    async def test_bodies_that_are_no_proper_json(self) -> None:
        """Lone surrogates and deep nesting do not end up in somebody's sync."""
        _, alice, bob = await self.two()
        path = "/_matrix/client/v3/sendToDevice/m.test/t"
        for content in ('{"a":"\\ud800"}', '{"\\udc00":1}', '{"a":' * 600 + "1" + "}" * 600):
            body = f'{{"messages":{{"{bob.user_id}":{{"*":{content}}}}}}}'.encode()
            status, answer = await alice.client.put(path, body=body)
            self.assertEqual(status, 400, answer)
            self.assertIn(answer["errcode"], ("M_BAD_JSON", "M_NOT_JSON"))
        content = '{"a":' * 500 + "1" + "}" * 500
        body = f'{{"messages":{{"{bob.user_id}":{{"*":{content}}}}}}}'.encode()
        status, answer = await alice.client.put(path, body=body)
        self.assertEqual(status, 200, answer)
        self.assertEqual(len(await received(bob)), 1)

    async def test_needs_a_token(self) -> None:
        """Not for the unknown."""
        server, _, bob = await self.two()
        path = "/_matrix/client/v3/sendToDevice/m.test/t"
        status, answer = await server.client.put(path, {"messages": {bob.user_id: {"*": {}}}})
        self.assertEqual((status, answer["errcode"]), (401, "M_MISSING_TOKEN"))
