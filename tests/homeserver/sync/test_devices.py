"""`/sync` from outside: messages to the device, and whose devices changed."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from homeserver.core.ids import UserID
from homeserver.rooms.membership import Membership
from tests.support.room_case import log_in
from tests.support.server import User, make_server


def started(request: Coroutine[Any, Any, Any]) -> Deferred[Any]:
    """Make a request without waiting for its answer."""
    return Deferred.fromCoroutine(request)


def numbers(answer: Any) -> list[int]:
    """What the messages to the device in an answer hold."""
    return [event["content"]["n"] for event in answer.get("to_device", {}).get("events", [])]


def lists(answer: Any) -> tuple[list[str], list[str]]:
    """`changed` and `left` of an answer, sorted."""
    found = answer.get("device_lists", {})
    return sorted(found.get("changed", [])), sorted(found.get("left", []))


class ToDeviceSyncTest(TestCase):
    timeout = 60

    async def prepare(self) -> None:
        self.server = await make_server(self, presence={"enabled": False})
        self.alice = await self.server.register("alice")
        self.bob = await self.server.register("bob")

    async def send(self, *contents: int) -> None:
        """Send messages from Alice to Bob's device."""
        for n in contents:
            messages = {self.bob.user_id: {self.bob.device_id: {"n": n}}}
            path = f"/sendToDevice/m.test/t{n}"
            await self.alice.ok("PUT", path, {"messages": messages})

    async def test_repeated_until_acknowledged(self) -> None:
        """Shows SYN-21."""
        await self.prepare()
        start = (await self.bob.sync())["next_batch"]
        await self.send(1, 2)
        first = await self.bob.sync(start)
        self.assertEqual(numbers(first), [1, 2])
        self.assertEqual(numbers(await self.bob.sync(start)), [1, 2])
        self.assertEqual(numbers(await self.bob.sync()), [1, 2])
        await self.send(3)
        second = await self.bob.sync(first["next_batch"])
        self.assertEqual(numbers(second), [3])
        # The first two have arrived and are gone; the third has not, as far as is known.
        self.assertEqual(numbers(await self.bob.sync(start)), [3])
        self.assertEqual(numbers(await self.bob.sync()), [3])
        third = await self.bob.sync(second["next_batch"])
        self.assertEqual(numbers(third), [])
        self.assertEqual(numbers(await self.bob.sync()), [])

    async def test_hundred_at_a_time(self) -> None:
        """The rest follows, and nothing of rooms comes twice meanwhile. Shows SYN-21."""
        await self.prepare()
        room_id = await self.alice.create_room(preset="public_chat")
        await self.bob.join(room_id)
        start = (await self.bob.sync())["next_batch"]
        await self.send(*range(150))
        await self.alice.send(room_id, "hello")
        await self.send(*range(150, 250))
        first = await self.bob.sync(start)
        self.assertEqual(numbers(first), list(range(100)))
        timeline = first["rooms"]["join"][room_id]["timeline"]["events"]
        self.assertEqual([event["content"]["body"] for event in timeline], ["hello"])
        self.assertEqual(numbers(await self.bob.sync(start)), list(range(100)))
        second = await self.bob.sync(first["next_batch"])
        self.assertEqual(numbers(second), list(range(100, 200)))
        self.assertNotIn("rooms", second)
        await self.send(250)
        self.assertEqual(numbers(await self.bob.sync(first["next_batch"])), list(range(100, 200)))
        third = await self.bob.sync(second["next_batch"])
        self.assertEqual(numbers(third), list(range(200, 251)))
        fourth = await self.bob.sync(third["next_batch"])
        self.assertEqual(numbers(fourth), [])
        self.assertEqual(numbers(await self.bob.sync()), [])

    async def test_what_remains_comes_without_waiting(self) -> None:
        """A sync that may wait does not while messages are left. Shows SYN-21."""
        await self.prepare()
        await self.send(*range(101))
        first = await self.bob.sync()
        self.assertEqual(numbers(first), list(range(100)))
        # Far longer than this test may take.
        second = await self.bob.sync(first["next_batch"], timeout=200_000)
        self.assertEqual(numbers(second), [100])

    async def test_parallel_syncs(self) -> None:
        """Shows SYN-30."""
        await self.prepare()
        start = (await self.bob.sync())["next_batch"]
        await self.send(1, 2)
        answers = await gatherResults([started(self.bob.sync(start)) for _ in range(4)])
        self.assertEqual([numbers(answer) for answer in answers], [[1, 2]] * 4)
        token = answers[0]["next_batch"]
        # One goes on while another, with the old token, waits and is repeated.
        await self.send(3)
        answers = await gatherResults(
            [started(self.bob.sync(since)) for since in (token, start, token)]
        )
        self.assertEqual(numbers(answers[0]), [3])
        self.assertEqual(numbers(answers[2]), [3])
        self.assertEqual(numbers(answers[1])[-1], 3)
        self.assertEqual(numbers(await self.bob.sync(start)), [3])

    async def test_parallel_waiting_syncs(self) -> None:
        """Both are woken by a message and both get it. Shows SYN-30, SYN-31."""
        await self.prepare()
        start = (await self.bob.sync())["next_batch"]
        waiting = [started(self.bob.sync(start, timeout=50_000)) for _ in range(2)]
        await self.send(1)
        answers = await gatherResults(waiting)
        self.assertEqual([numbers(answer) for answer in answers], [[1], [1]])
        again = await self.bob.sync(start)
        self.assertEqual(numbers(again), [1])


class DeviceListSyncTest(TestCase):
    timeout = 60

    async def prepare(self) -> None:
        self.server = await make_server(self, presence={"enabled": False})
        self.alice = await self.server.register("alice")
        self.bob = await self.server.register("bob")
        self.carol = await self.server.register("carol")

    async def share(self, *others: User) -> str:
        """A room of Alice's with others in it."""
        room_id = await self.alice.create_room(preset="public_chat")
        for other in others:
            await other.join(room_id)
        return room_id

    async def token(self, user: User) -> str:
        """The token of an initial sync, which does not list devices. Shows SYN-22."""
        answer = await user.sync()
        self.assertNotIn("device_lists", answer)
        token: str = answer["next_batch"]
        return token

    async def test_devices_change(self) -> None:
        """A login, a new name and a logout are told once to those around. Shows SYN-22."""
        await self.prepare()
        await self.share(self.bob)
        alice, carol = await self.token(self.alice), await self.token(self.carol)
        other = await log_in(self.bob.server, self.bob)
        for step in range(3):
            if step == 1:
                body = {"display_name": "Phone"}
                await other.ok("PUT", f"/devices/{other.device_id}", body)
            elif step == 2:
                await other.ok("POST", "/logout", {})
            answer = await self.alice.sync(alice)
            self.assertEqual(lists(answer), ([self.bob.user_id], []))
            repeated = await self.alice.sync(alice)
            self.assertEqual(lists(repeated), ([self.bob.user_id], []))
            alice = answer["next_batch"]
            self.assertNotIn("device_lists", await self.alice.sync(alice))
        self.assertNotIn("device_lists", await self.carol.sync(carol))

    async def test_own_devices(self) -> None:
        """Shows SYN-23."""
        await self.prepare()
        token = await self.token(self.alice)
        await log_in(self.alice.server, self.alice)
        answer = await self.alice.sync(token)
        self.assertEqual(lists(answer), ([self.alice.user_id], []))
        self.assertNotIn("device_lists", await self.alice.sync(answer["next_batch"]))

    async def test_the_same_device_again(self) -> None:
        """Logging in anew on a device changes no list."""
        await self.prepare()
        await self.share(self.bob)
        token = await self.token(self.alice)
        await log_in(self.bob.server, self.bob, self.bob.device_id)
        self.assertNotIn("device_lists", await self.alice.sync(token))

    async def test_joining_and_leaving(self) -> None:
        """Shows SYN-22."""
        await self.prepare()
        room_id = await self.share(self.bob)
        alice, carol = await self.token(self.alice), await self.token(self.carol)
        await self.carol.join(room_id)
        answer = await self.alice.sync(alice)
        self.assertEqual(lists(answer), ([self.carol.user_id], []))
        alice = answer["next_batch"]
        answer = await self.carol.sync(carol)
        self.assertEqual(lists(answer), ([self.alice.user_id, self.bob.user_id], []))
        carol = answer["next_batch"]
        await self.carol.leave(room_id)
        answer = await self.alice.sync(alice)
        self.assertEqual(lists(answer), ([], [self.carol.user_id]))
        answer = await self.carol.sync(carol)
        self.assertEqual(lists(answer), ([], [self.alice.user_id, self.bob.user_id]))
        carol = answer["next_batch"]
        # Strangers again: devices are no business of theirs.
        await log_in(self.bob.server, self.bob)
        self.assertNotIn("device_lists", await self.carol.sync(carol))

    async def test_kicked(self) -> None:
        """Shows SYN-22."""
        await self.prepare()
        room_id = await self.share(self.bob)
        token = await self.token(self.bob)
        body = {"user_id": self.bob.user_id}
        await self.alice.ok("POST", f"/rooms/{room_id}/kick", body)
        self.assertEqual(lists(await self.bob.sync(token)), ([], [self.alice.user_id]))

    async def joined(self) -> list[str]:
        """The rooms that Bob is in."""
        return await self.server.homeserver.services[Membership].joined_rooms(
            UserID(self.bob.user_id)
        )

    async def test_closed_accounts(self) -> None:
        """Who closes their account leaves. Shows SYN-22."""
        await self.prepare()
        await self.share(self.bob)
        token = await self.token(self.alice)
        auth = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": self.bob.user_id},
            "password": "wonderland",
        }
        status, answer = await self.bob.call("POST", "/account/deactivate", {})
        self.assertEqual(status, 401)
        auth["session"] = answer["session"]
        room_ids = await self.joined()
        await self.bob.ok("POST", "/account/deactivate", {"auth": auth})
        # A job leaves the rooms after the answer.
        while await self.joined():
            await deferLater(reactor, 0.02, lambda: None)
        self.assertEqual(len(room_ids), 1)
        self.assertEqual(lists(await self.alice.sync(token)), ([], [self.bob.user_id]))

    async def test_waiting_syncs_wake(self) -> None:
        """Of those around, and of the user's other devices. Shows SYN-31, SYN-22, SYN-23."""
        await self.prepare()
        await self.share(self.bob)
        waiting = [
            started(user.sync(await self.token(user), timeout=50_000))
            for user in (self.alice, self.bob)
        ]
        await log_in(self.bob.server, self.bob)
        for answer in await gatherResults(waiting):
            self.assertEqual(lists(answer), ([self.bob.user_id], []))
