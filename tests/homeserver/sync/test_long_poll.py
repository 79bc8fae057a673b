"""When `/sync` answers: at once, at the first change, after the timeout; and with which token."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import deferLater

from homeserver.core.tokens import SyncToken
from tests.homeserver.sync import scene
from tests.homeserver.sync.scene import SyncTestCase, joined
from tests.support.server import User

LONG = 50_000


def waiting(user: User, since: str, **query: Any) -> Deferred[Any]:
    """A sync that waits for something to happen."""
    return Deferred.fromCoroutine(user.sync(since, timeout=LONG, **query))


def bodies(answer: Any, room_id: str) -> list[str]:
    """The texts in the timeline of a joined room."""
    return scene.bodies(joined(answer, room_id))


async def pause(seconds: float = 0.1) -> None:
    await deferLater(reactor, seconds, lambda: None)


class AnswerTest(SyncTestCase):
    async def test_initial(self) -> None:
        """Shows SYN-1."""
        room_id = await self.shared_room(name="Tea")
        invited = await self.alice.create_room(preset="private_chat", invite=[self.bob.user_id])
        knocked = await self.alice.create_room(
            initial_state=[{"type": "m.room.join_rules", "content": {"join_rule": "knock"}}]
        )
        await self.bob.ok("POST", f"/knock/{quote(knocked)}", {})
        await self.bob.ok("PUT", f"/user/{self.bob.user_id}/account_data/org.test.kind", {"a": 1})
        await self.alice.ok(
            "PUT",
            "/sendToDevice/org.test.hello/t1",
            {"messages": {self.bob.user_id: {"*": {"greeting": "hello"}}}},
        )
        for number in range(15):
            await self.alice.send(room_id, f"message {number}")
        answer = await self.bob.sync()
        self.assertEqual(bodies(answer, room_id), [f"message {n}" for n in range(5, 15)])
        self.assertTrue(joined(answer, room_id)["timeline"]["limited"])
        self.assertIn(invited, answer["rooms"]["invite"])
        self.assertIn(knocked, answer["rooms"]["knock"])
        self.assertNotIn("leave", answer["rooms"])
        kinds = {event["type"]: event["content"] for event in answer["account_data"]["events"]}
        self.assertEqual(kinds["org.test.kind"], {"a": 1})
        self.assertIn("m.push_rules", kinds)
        sent = answer["to_device"]["events"]
        self.assertEqual([event["content"] for event in sent], [{"greeting": "hello"}])
        senders = {event["sender"] for event in answer["presence"]["events"]}
        self.assertIn(self.bob.user_id, senders)

    async def test_timeout(self) -> None:
        """Shows SYN-2."""
        room_id = await self.shared_room()
        first = await self.bob.sync()
        at_once = await self.bob.sync(first["next_batch"], timeout=0)
        self.assertNotIn("rooms", at_once)
        later = await self.bob.sync(first["next_batch"], timeout=50)
        self.assertNotIn("rooms", later)
        self.assertIn("next_batch", later)
        await self.alice.send(room_id, "now")
        self.assertEqual(bodies(await self.bob.sync(later["next_batch"]), room_id), ["now"])

    async def test_waits_without_rooms(self) -> None:
        """A user without rooms is woken by an invite. Shows SYN-2, SYN-31."""
        first = await self.bob.sync()
        wait = waiting(self.bob, first["next_batch"])
        room_id = await self.alice.create_room(preset="private_chat", invite=[self.bob.user_id])
        self.assertIn(room_id, (await wait)["rooms"]["invite"])

    async def test_events_of_other_rooms_do_not_answer(self) -> None:
        """Shows SYN-2."""
        room_id = await self.shared_room()
        other = await self.alice.create_room()
        first = await self.bob.sync()
        wait = waiting(self.bob, first["next_batch"])
        await self.alice.send(other, "unheard")
        await pause()
        self.assertFalse(wait.called)
        await self.alice.send(room_id, "heard")
        self.assertEqual(bodies(await wait, room_id), ["heard"])

    async def test_filtered_events_do_not_answer(self) -> None:
        """Shows SYN-2, FIL-1."""
        room_id = await self.shared_room()
        only = '{"room":{"timeline":{"types":["m.room.topic"]}}}'
        first = await self.bob.sync(filter=only)
        wait = waiting(self.bob, first["next_batch"], filter=only)
        await self.alice.send(room_id, "unwanted")
        await pause()
        self.assertFalse(wait.called)
        await self.alice.set_state(room_id, "m.room.topic", {"topic": "wanted"})
        types = [e["type"] for e in joined(await wait, room_id)["timeline"]["events"]]
        self.assertEqual(types, ["m.room.topic"])

    async def test_many_wait(self) -> None:
        """Everybody in a room is woken, each with all devices. Shows SYN-31."""
        room_id = await self.shared_room()
        others = [await self.server.register() for _ in range(5)]
        quiet = {"set_presence": "offline"}
        for user in others:
            await user.join(room_id)
        tokens = [(user, await self.token(user, **quiet)) for user in (*others, *others)]
        waits = [waiting(user, token, **quiet) for user, token in tokens]
        await pause()
        await self.alice.send(room_id, "all of you")
        for answer in await DeferredList(waits, fireOnOneErrback=True):
            self.assertEqual(bodies(answer[1], room_id), ["all of you"])

    async def test_cancelled(self) -> None:
        """A client that goes away leaves nothing behind. Shows SYN-2."""
        room_id = await self.shared_room()
        first = await self.bob.sync()
        request = self.bob.client.build(
            "GET",
            "/_matrix/client/v3/sync",
            query={"since": first["next_batch"], "timeout": LONG},
        )
        answer = Deferred.fromCoroutine(self.server.homeserver.router.handle(request))
        await pause()
        self.assertTrue(request.is_cancellable)
        request.is_cancelled = True
        answer.addErrback(lambda _: None)
        answer.cancel()
        await pause()
        self.assertTrue(answer.called)
        await self.alice.send(room_id, "gone")
        self.assertEqual(bodies(await self.bob.sync(first["next_batch"]), room_id), ["gone"])

    async def test_stopping(self) -> None:
        """A server that stops answers those who wait, with what it has. Shows SYN-2."""
        await self.shared_room()
        first = await self.bob.sync()
        request = self.bob.client.build(
            "GET",
            "/_matrix/client/v3/sync",
            query={"since": first["next_batch"], "timeout": LONG},
        )
        answer = Deferred.fromCoroutine(self.server.homeserver.router.handle(request))
        await pause()
        self.assertFalse(answer.called)
        self.assertTrue(request.shutting_down())
        self.assertEqual((await answer).status, 200)


class TokenTest(SyncTestCase):
    async def test_malformed(self) -> None:
        """Shows SYN-28."""
        for since in ("x", "s1", "t1-1", "s-1_0", "s1_2_3", "s1_2\0", "s99999999999999999999_1"):
            status, body = await self.bob.call("GET", "/sync", query={"since": since})
            self.assertEqual((status, body["errcode"]), (400, "M_INVALID_PARAM"), since)
        for filter_ in ("nonsense", "{", "{]", "-1", "999", '{"room": 1}', "\ud7ff\0"):
            status, body = await self.bob.call("GET", "/sync", query={"filter": filter_})
            self.assertEqual(status, 400, filter_)
        for query in (
            {"timeout": "-1"},
            {"timeout": "soon"},
            {"full_state": "perhaps"},
            {"set_presence": "asleep"},
            {"use_state_after": "2"},
        ):
            status, body = await self.bob.call("GET", "/sync", query=query)
            self.assertEqual((status, body["errcode"]), (400, "M_INVALID_PARAM"), query)

    async def test_repeated_often(self) -> None:
        """Shows SYN-28: many syncs at once never fail."""
        await self.shared_room()
        token = (await self.bob.sync())["next_batch"]
        calls = [Deferred.fromCoroutine(self.bob.sync(token)) for _ in range(20)]
        for _, answer in await DeferredList(calls, fireOnOneErrback=True):
            self.assertIn("next_batch", answer)

    async def test_same_token_again(self) -> None:
        """Shows SYN-3."""
        room_id = await self.shared_room()
        token = (await self.bob.sync())["next_batch"]
        await self.alice.send(room_id, "one")
        await self.alice.send(room_id, "two")
        for _ in range(3):
            self.assertEqual(bodies(await self.bob.sync(token), room_id), ["one", "two"])

    async def test_restart(self) -> None:
        """Tokens hold beyond a restart. Shows SYN-3."""
        room_id = await self.shared_room()
        token = (await self.bob.sync())["next_batch"]
        await self.alice.send(room_id, "before")
        await self.server.restart()
        await self.alice.send(room_id, "after")
        answer = await self.bob.sync(token)
        self.assertEqual(bodies(answer, room_id), ["before", "after"])
        self.assertNotIn("rooms", await self.bob.sync(answer["next_batch"]))

    async def test_nothing_lost_or_repeated(self) -> None:
        """While many write at once, each event is sent exactly once. Shows SYN-3, SYN-9."""
        rooms = [await self.shared_room() for _ in range(3)]
        token = (await self.bob.sync())["next_batch"]
        sends = [Deferred.fromCoroutine(self.alice.send(rooms[n % 3], f"{n}")) for n in range(60)]
        done = DeferredList(sends, fireOnOneErrback=True)
        seen: dict[str, list[str]] = {room_id: [] for room_id in rooms}
        while sum(map(len, seen.values())) < 60:
            answer = await self.bob.sync(
                token, timeout=1000, filter='{"room":{"timeline":{"limit":100}}}'
            )
            token = answer["next_batch"]
            for room_id in rooms:
                found = answer.get("rooms", {}).get("join", {}).get(room_id)
                if found is not None:
                    self.assertFalse(found["timeline"]["limited"])
                    seen[room_id] += bodies(answer, room_id)
        await done
        everything = [text for texts in seen.values() for text in texts]
        self.assertEqual(sorted(everything, key=int), [str(n) for n in range(60)])
        again = await self.bob.sync(filter='{"room":{"timeline":{"limit":100}}}')
        for room_id in rooms:
            self.assertEqual(bodies(again, room_id), seen[room_id])

    async def test_of_the_future(self) -> None:
        """A token from before a backup was restored goes on with the present. Shows SYN-28."""
        room_id = await self.shared_room()
        token = SyncToken.parse((await self.bob.sync())["next_batch"])
        future = token._replace(durable=token.durable + 1000, ephemeral=token.ephemeral + 10**9)
        answer = await self.bob.sync(str(future), timeout=LONG)
        self.assertEqual(SyncToken.parse(answer["next_batch"]).durable, token.durable)
        await self.alice.send(room_id, "hello")
        self.assertEqual(bodies(await self.bob.sync(answer["next_batch"]), room_id), ["hello"])

    async def test_local_echo(self) -> None:
        """What was accepted is in the sender's next sync. Shows SND-11."""
        room_id = await self.alice.create_room()
        token = (await self.alice.sync())["next_batch"]
        for number in range(20):
            sent = await self.alice.send(room_id, f"{number}")
            answer = await self.alice.sync(token)
            token = answer["next_batch"]
            (event,) = joined(answer, room_id)["timeline"]["events"]
            self.assertEqual(event["event_id"], sent)
            self.assertIn("transaction_id", event["unsigned"])
        created = await self.alice.create_room(name="New")
        types = [
            event["type"]
            for event in joined(await self.alice.sync(token), created)["timeline"]["events"]
        ]
        self.assertEqual(types[:2], ["m.room.create", "m.room.member"])
        self.assertIn("m.room.name", types)


class WakeTest(SyncTestCase):
    """Shows SYN-31: a waiting sync is woken by every kind of change."""

    async def start(self) -> None:
        self.room_id = await self.shared_room()
        self.path = f"/rooms/{quote(self.room_id)}"
        # Presence of the first sync is told a moment later.
        await self.bob.sync()
        await pause(1.3)
        self.wait = waiting(self.bob, (await self.bob.sync())["next_batch"], set_presence="offline")
        await pause()
        self.assertFalse(self.wait.called)

    async def test_message(self) -> None:
        """Shows SYN-31."""
        await self.start()
        await self.alice.send(self.room_id, "hello")
        self.assertEqual(bodies(await self.wait, self.room_id), ["hello"])

    async def test_invite(self) -> None:
        """Shows SYN-31."""
        await self.start()
        room_id = await self.alice.create_room(invite=[self.bob.user_id])
        self.assertIn(room_id, (await self.wait)["rooms"]["invite"])

    async def test_kick(self) -> None:
        """Shows SYN-31."""
        await self.start()
        await self.alice.ok("POST", f"{self.path}/kick", {"user_id": self.bob.user_id})
        self.assertIn(self.room_id, (await self.wait)["rooms"]["leave"])

    async def test_own_leave(self) -> None:
        """Shows SYN-31."""
        await self.start()
        await self.bob.leave(self.room_id)
        self.assertIn(self.room_id, (await self.wait)["rooms"]["leave"])

    async def test_receipt(self) -> None:
        """Shows SYN-31."""
        await self.start()
        event_id = await self.alice.set_state(self.room_id, "m.room.topic", {"topic": "x"})
        answer = await self.wait
        self.wait = waiting(self.bob, answer["next_batch"])
        await self.alice.ok("POST", f"{self.path}/receipt/m.read/{quote(event_id)}", {})
        (event,) = joined(await self.wait, self.room_id)["ephemeral"]["events"]
        self.assertIn(event_id, event["content"])

    async def test_typing(self) -> None:
        """Shows SYN-31."""
        await self.start()
        await self.alice.ok(
            "PUT", f"{self.path}/typing/{self.alice.user_id}", {"typing": True, "timeout": 30000}
        )
        (event,) = joined(await self.wait, self.room_id)["ephemeral"]["events"]
        self.assertEqual(event["content"], {"user_ids": [self.alice.user_id]})

    async def test_account_data(self) -> None:
        """Shows SYN-31."""
        await self.start()
        await self.bob.ok("PUT", f"/user/{self.bob.user_id}/account_data/org.test", {"a": 1})
        (event,) = (await self.wait)["account_data"]["events"]
        self.assertEqual(event, {"type": "org.test", "content": {"a": 1}})

    async def test_room_account_data(self) -> None:
        """Shows SYN-31."""
        await self.start()
        path = f"/user/{self.bob.user_id}{self.path}/account_data/org.test"
        await self.bob.ok("PUT", path, {"a": 1})
        (event,) = joined(await self.wait, self.room_id)["account_data"]["events"]
        self.assertEqual(event, {"type": "org.test", "content": {"a": 1}})

    async def test_device_list(self) -> None:
        """Shows SYN-31."""
        await self.start()
        path = f"/devices/{self.alice.device_id}"
        await self.alice.ok("PUT", path, {"display_name": "Telephone"})
        self.assertEqual((await self.wait)["device_lists"]["changed"], [self.alice.user_id])

    async def test_to_device(self) -> None:
        """Shows SYN-31."""
        await self.start()
        messages = {self.bob.user_id: {self.bob.device_id: {"a": 1}}}
        await self.alice.ok("PUT", "/sendToDevice/org.test/t1", {"messages": messages})
        (event,) = (await self.wait)["to_device"]["events"]
        self.assertEqual(event["content"], {"a": 1})

    async def test_push_rule(self) -> None:
        """Shows SYN-31."""
        await self.start()
        path = f"/pushrules/global/room/{quote(self.room_id)}"
        await self.bob.ok("PUT", path, {"actions": []})
        (event,) = (await self.wait)["account_data"]["events"]
        self.assertEqual(event["type"], "m.push_rules")

    async def test_presence(self) -> None:
        """Shows SYN-31."""
        await self.start()
        await self.alice.ok(
            "PUT",
            f"/presence/{self.alice.user_id}/status",
            {"presence": "online", "status_msg": "Busy"},
        )
        (event,) = (await self.wait)["presence"]["events"]
        self.assertEqual(event["content"]["status_msg"], "Busy")
