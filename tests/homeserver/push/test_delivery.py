"""What a push gateway is told."""

from __future__ import annotations

import dataclasses
from typing import Any

from twisted.internet.task import LoopingCall
from twisted.trial.unittest import TestCase

from homeserver.push import delivery, reader
from tests.homeserver.api.client.test_push_rules import put_rule
from tests.homeserver.api.client.test_receipts import read, thread
from tests.homeserver.rooms.test_unread import mention, mute
from tests.support.network import eventually
from tests.support.push_gateway import PushGateway
from tests.support.server import TestServer, User, make_server


def is_update(told: dict[str, Any], unread: int) -> bool:
    """Whether a device is told nothing but this count."""
    return "event_id" not in told and told["counts"] == {"unread": unread}


class PushTestCase(TestCase):
    timeout = 60

    async def meet(self, *, pushed: bool = True, **options: Any) -> None:
        """Alice and Bob are in a room of three; Bob has a pusher. Nothing is waited for long."""
        self.patch(delivery, "FIRST_PAUSE_MS", 20)
        self.patch(reader, "BADGE_DELAY_MS", 20)
        self.patch(reader, "SOON_S", 0.01)
        self.gateway = PushGateway(self)
        self.server: TestServer = await make_server(
            self, outgoing_http=PushGateway.trust(), **options
        )
        self.alice = await self.server.register()
        await self.alice.ok(
            "PUT", f"/profile/{self.alice.user_id}/displayname", {"displayname": "Alice"}
        )
        self.bob: User = await self.server.register()
        self.carol = await self.server.register()
        self.room_id = await self.alice.create_room(preset="public_chat", name="Lounge")
        await self.bob.join(self.room_id)
        await self.carol.join(self.room_id)
        if pushed:
            await self.gateway.add(self.bob)

    async def silence(self, *expected: str, pushkey: str = "key") -> None:
        """Show that nothing else comes: a mention does, and it is what comes next."""
        last = await self.alice.send(self.room_id, mention(self.bob.user_id))
        await eventually(lambda: last in self.gateway.events(pushkey), "the last push")
        self.assertEqual(self.gateway.events(pushkey), [*expected, last])


class ContentTest(PushTestCase):
    async def test_message(self) -> None:
        """Shows PSH-11."""
        await self.meet(pushed=False)
        data = {"url": self.gateway.url, "own": {"thing": [1]}}
        await self.gateway.add(self.bob, data=data)
        event_id = await self.alice.send(self.room_id, "hello Bob")
        told = dict((await self.gateway.heard(1))[0])
        [device] = told.pop("devices")
        self.assertEqual(
            told,
            {
                "event_id": event_id,
                "room_id": self.room_id,
                "type": "m.room.message",
                "sender": self.alice.user_id,
                "sender_display_name": "Alice",
                "room_name": "Lounge",
                "content": {"msgtype": "m.text", "body": "hello Bob"},
                "prio": "low",
                "counts": {"unread": 1},
            },
        )
        self.assertEqual(device.pop("tweaks"), {})
        self.assertGreater(device.pop("pushkey_ts"), 1_600_000_000)
        self.assertEqual(
            device, {"app_id": "org.example.app", "pushkey": "key", "data": {"own": {"thing": [1]}}}
        )
        await self.alice.send(self.room_id, mention(self.bob.user_id))
        told = (await self.gateway.heard(2))[-1]
        self.assertEqual((told["prio"], told["counts"]), ("high", {"unread": 2}))
        self.assertEqual(told["devices"][0]["tweaks"], {"sound": "default", "highlight": True})
        await self.alice.send(self.room_id, {"ciphertext": "x"}, "m.room.encrypted")
        told = (await self.gateway.heard(3))[-1]
        self.assertEqual((told["prio"], told["content"]), ("high", {"ciphertext": "x"}))

    async def test_event_id_only(self) -> None:
        """Shows PSH-11."""
        await self.meet(pushed=False)
        data = {"url": self.gateway.url, "format": "event_id_only"}
        await self.gateway.add(self.bob, data=data)
        event_id = await self.alice.send(self.room_id)
        told = dict((await self.gateway.heard(1))[0])
        self.assertEqual(told.pop("devices")[0]["data"], {"format": "event_id_only"})
        self.assertEqual(
            told,
            {
                "event_id": event_id,
                "room_id": self.room_id,
                "prio": "low",
                "counts": {"unread": 1},
            },
        )

    async def test_gateways_are_told_all_data_but_the_url(self) -> None:
        """Gateways that pass on to browsers need what the client left for them."""
        await self.meet(pushed=False)
        own = {"endpoint": "https://push.example.org/x", "auth": "c2VjcmV0", "events_only": True}
        await self.gateway.add(self.bob, data={"url": self.gateway.url, **own})
        await self.alice.send(self.room_id)
        [told] = await self.gateway.heard(1)
        self.assertEqual(told["devices"][0]["data"], own)

    async def test_operators_who_keep_content_to_themselves(self) -> None:
        await self.meet(push={"include_content": False})
        await self.alice.send(self.room_id, "secret")
        [told] = await self.gateway.heard(1)
        self.assertEqual(told.keys(), {"event_id", "room_id", "prio", "counts", "devices"})

    async def test_invite(self) -> None:
        """Shows PSH-9."""
        await self.meet()
        other = await self.alice.create_room(name="Attic")
        await self.alice.invite(other, self.bob.user_id)
        [told] = await self.gateway.heard(1)
        self.assertEqual((told["room_id"], told["room_name"]), (other, "Attic"))
        self.assertEqual((told["type"], told["user_is_target"]), ("m.room.member", True))
        self.assertEqual((told["counts"], told["prio"]), ({"unread": 1}, "high"))
        self.assertEqual(told["sender_display_name"], "Alice")

    async def test_who_is_told(self) -> None:
        """Shows PSH-7, PSH-11."""
        await self.meet()
        await self.gateway.add(self.alice, pushkey="alice")
        await self.gateway.add(self.bob, pushkey="laptop")
        first = await self.alice.send(self.room_id)
        await self.alice.send(self.room_id, {"msgtype": "m.notice", "body": "psst"})
        await self.alice.set_state(self.room_id, "m.room.topic", {"topic": "tea"})
        muted = await self.alice.create_room(preset="public_chat")
        await self.bob.join(muted)
        await put_rule(self.bob, "override", "muted", mute(muted))
        await self.alice.send(muted, "muted")
        ignored: dict[str, Any] = {"ignored_users": {self.carol.user_id: {}}}
        await self.bob.ok(
            "PUT", f"/user/{self.bob.user_id}/account_data/m.ignored_user_list", ignored
        )
        await self.carol.send(self.room_id, mention(self.bob.user_id))
        await self.gateway.heard(1, "alice")
        await self.silence(first)
        await self.silence(*self.gateway.events(), pushkey="laptop")
        # Alice is told of what Carol wrote, until she writes herself, and never of that.
        senders = {each.get("sender") for each in self.gateway.of("alice")}
        self.assertLessEqual(senders, {self.carol.user_id, None})

    async def test_own_rules(self) -> None:
        """Shows PSH-11."""
        await self.meet()
        await self.bob.ok(
            "PUT", "/pushrules/global/underride/.m.rule.message/actions", {"actions": []}
        )
        loud = ["notify", {"set_tweak": "sound", "value": "gong"}]
        await put_rule(self.bob, "content", "tea", {"actions": loud, "pattern": "tea"})
        await self.alice.send(self.room_id, "coffee")
        event_id = await self.alice.send(self.room_id, "some tea")
        [told] = await self.gateway.heard(1)
        self.assertEqual(told["event_id"], event_id)
        self.assertEqual(told["devices"][0]["tweaks"], {"sound": "gong"})

    async def test_threads_that_are_followed(self) -> None:
        await self.meet()
        root = await self.alice.send(self.room_id)
        await self.gateway.heard(1)
        path = "/_matrix/client/unstable/io.element.msc4306/rooms"
        path += f"/{self.room_id}/thread/{root}/subscription"
        await self.alice.send(self.room_id, thread(root))
        await self.gateway.heard(2)
        await self.bob.ok("PUT", path, {})
        await self.alice.send(self.room_id, thread(root))
        told = (await self.gateway.heard(3))[-1]
        self.assertEqual(told["devices"][0]["tweaks"], {"sound": "default"})
        await self.bob.ok("DELETE", path)
        await self.alice.send(self.room_id, thread(root))
        await self.silence(*self.gateway.events())
        newest = (await self.bob.ok("GET", "/notifications"))["notifications"]
        self.assertEqual(len(newest), 4)

    async def test_a_pusher_that_is_off(self) -> None:
        await self.meet()
        await self.gateway.add(self.bob, enabled=False)
        await self.gateway.add(self.bob, pushkey="other")
        await self.alice.send(self.room_id)
        await self.gateway.heard(1, "other")
        self.assertEqual(self.gateway.of("key"), [])


class BadgeTest(PushTestCase):
    async def test_after_reading(self) -> None:
        """Shows PSH-11."""
        await self.meet()
        other = await self.alice.create_room(preset="public_chat")
        await self.bob.join(other)
        await self.alice.send(self.room_id)
        event_id = await self.alice.send(self.room_id)
        await self.alice.send(other)
        told = await self.gateway.heard(3)
        self.assertEqual(told[-1]["counts"], {"unread": 3})
        await read(self.bob, self.room_id, event_id, kind="m.read.private")
        # A count may come before its messages do: those of later ones are looked for.
        [update] = await self.gateway.heard(1, what=lambda each: is_update(each, 1))
        self.assertEqual(update.keys(), {"counts", "devices", "prio"})
        await self.bob.leave(other)
        [update] = await self.gateway.heard(1, what=lambda each: is_update(each, 0))
        self.assertIs(self.gateway.of("key")[-1], update)

    async def test_rooms_instead_of_messages(self) -> None:
        await self.meet(push={"badge": "rooms"})
        for number in (1, 2):
            await self.alice.send(self.room_id)
            told = await self.gateway.heard(number)
            self.assertEqual(told[-1]["counts"], {"unread": 1})

    async def test_threads(self) -> None:
        """Shows PSH-8."""
        await self.meet()
        root = await self.alice.send(self.room_id)
        await self.gateway.heard(1)
        in_thread = await self.alice.send(self.room_id, thread(root))
        told = await self.gateway.heard(2)
        self.assertEqual([each["counts"]["unread"] for each in told], [1, 2])
        await read(self.bob, self.room_id, in_thread, thread_id=root)
        [update] = await self.gateway.heard(1, what=lambda each: "event_id" not in each)
        self.assertEqual(update["counts"], {"unread": 1})

    async def test_missed_calls(self) -> None:
        """Shows PSH-11."""
        await self.meet()
        for number, answered in enumerate((False, True)):
            call = {"call_id": f"c{number}", "version": "1", "lifetime": 0, "party_id": "a"}
            await self.alice.send(self.room_id, call, "m.call.invite")
            if answered:
                answer = {"call_id": f"c{number}", "version": "1", "party_id": "b"}
                await self.bob.send(self.room_id, answer, "m.call.answer")
        await self.gateway.heard(2)
        await self.alice.send(self.room_id)
        told = (await self.gateway.heard(3))[-1]
        self.assertEqual(told["counts"], {"unread": 3, "missed_calls": 1})


class NotNeededTest(PushTestCase):
    """What happens to an event before it is told."""

    async def hold(self) -> str:
        """Have the gateway fail for one message, which then waits."""
        self.patch(delivery, "FIRST_PAUSE_MS", 400)
        self.gateway.next_answers = [500]
        event_id = await self.alice.send(self.room_id, "wait")
        await eventually(lambda: not self.gateway.next_answers, "a failure")
        return event_id

    async def test_read_redacted_left(self) -> None:
        """Shows PSH-11."""
        await self.meet()
        read_one = await self.hold()
        await read(self.bob, self.room_id, read_one)
        await self.silence()
        redacted = await self.hold()
        await self.alice.ok("PUT", f"/rooms/{self.room_id}/redact/{redacted}/r1", {})
        await self.silence(*self.gateway.events())
        await self.hold()
        await self.bob.leave(self.room_id)
        await self.bob.join(self.room_id)
        await self.silence(*self.gateway.events())

    async def test_events_before_the_pusher(self) -> None:
        await self.meet(pushed=False)
        await self.alice.send(self.room_id)
        await self.gateway.add(self.bob)
        await self.silence()

    async def test_while_it_is_switched_off(self) -> None:
        await self.meet()
        config = self.server.homeserver.config
        for enabled in (False, True):
            push = dataclasses.replace(config.push, enabled=enabled)
            self.server.homeserver.config = dataclasses.replace(config, push=push)
            await self.server.restart()
            if not enabled:
                await self.alice.send(self.room_id)
        await self.silence()

    async def test_the_pusher_goes(self) -> None:
        await self.meet()
        await self.hold()
        await self.bob.ok("POST", "/pushers/set", self.gateway.pusher(kind=None))
        await self.gateway.add(self.bob, pushkey="new")
        await self.silence(pushkey="new")
        self.assertEqual(self.gateway.of("key"), [])


class FailureTest(PushTestCase):
    async def test_rejected(self) -> None:
        """Shows PSH-11."""
        await self.meet()
        await self.gateway.add(self.bob, pushkey="other")
        self.gateway.rejects = {"key"}
        await self.alice.send(self.room_id)

        async def gone() -> bool:
            found = (await self.bob.ok("GET", "/pushers"))["pushers"]
            return [each["pushkey"] for each in found] == ["other"]

        await eventually(gone, "the pusher is gone")
        await self.gateway.heard(1, "other")

    async def test_failures_keep_the_order(self) -> None:
        """Shows PSH-11."""
        await self.meet()
        self.gateway.next_answers = [
            500,
            (302, {}),
            (429, {}, {"Retry-After": "1"}),
            (503, b"<html>"),
            (200, b"x" * 100_000),
        ]
        sent = [await self.alice.send(self.room_id, f"m{n}") for n in range(4)]
        told = await self.gateway.heard(4)
        self.assertEqual([each["event_id"] for each in told], sent)

    async def test_strange_answers_are_answers(self) -> None:
        await self.meet()
        self.gateway.next_answers = [(200, b"<html>"), (200, []), (200, {"rejected": "key"})]
        sent = [await self.alice.send(self.room_id, f"m{n}") for n in range(4)]
        await eventually(lambda: self.gateway.asked >= 4, "four requests")
        self.assertEqual(self.gateway.events(), sent[3:])

    async def test_a_gateway_that_hangs(self) -> None:
        """Shows PSH-11."""
        await self.meet(push={"timeout": "200ms"})
        hanging = PushGateway(self)
        hanging.next_answers = [None] * 100
        await hanging.add(self.carol, pushkey="carol")
        await self.alice.send(self.room_id)
        await eventually(lambda: hanging.asked >= 1, "a request")
        for _ in range(3):
            await self.alice.send(self.room_id)
        # The others are not held up, and it is asked by one at a time.
        await self.gateway.heard(4)
        hanging.next_answers = []
        await hanging.heard(4, "carol")

    async def test_one_user_with_many_gateways_that_hang(self) -> None:
        """Whoever names gateways that never answer is in nobody else's way."""
        self.patch(delivery, "STOP_S", 0.1)
        await self.meet(pushed=False, push={"timeout": "60s", "at_once": 4})
        hanging = [PushGateway(self) for _ in range(5)]
        for number, gateway in enumerate(hanging):
            gateway.next_answers = [None] * 10
            await gateway.add(self.bob, pushkey=f"key{number}")
        await self.alice.send(self.room_id)
        await eventually(lambda: any(each.asked for each in hanging), "a request")
        await self.gateway.add(self.carol, pushkey="carol")
        await self.alice.send(self.room_id)
        await self.gateway.heard(1, "carol")

    async def test_what_waits_survives_a_restart(self) -> None:
        """Shows PSH-11."""
        await self.meet()
        self.gateway.next_answers = [500]
        event_id = await self.alice.send(self.room_id)
        await eventually(lambda: not self.gateway.next_answers, "a failure")
        await self.server.restart()
        [told] = await self.gateway.heard(1)
        self.assertEqual(told["event_id"], event_id)

    async def test_what_is_under_way_when_a_server_stops(self) -> None:
        """It stays this process's own until it is answered: nobody sends it a second time."""
        self.patch(delivery, "STOP_S", 0.2)
        await self.meet()
        self.gateway.next_answers = [None]
        event_id = await self.alice.send(self.room_id)
        await eventually(lambda: self.gateway.asked, "a request")
        hints = LoopingCall(self.server.homeserver.services[delivery.PushDelivery].wake)
        hinting = hints.start(0.001)
        await self.server.homeserver.stop()
        hints.stop()
        await hinting
        self.assertEqual(self.gateway.asked, 1)
        await self.server.restart()
        await self.silence(event_id)

    async def test_given_up(self) -> None:
        """Shows PSH-11."""
        await self.meet(push={"give_up_after": "1s"})
        self.gateway.next_answers = [500] * 100
        await self.alice.send(self.room_id)

        async def given_up() -> Any:
            return await self.server.homeserver.db.read(
                lambda txn: txn.value("SELECT attempts FROM push_log WHERE outcome = 'given up'")
            )

        self.assertGreater(await eventually(given_up, "the end"), 2)
        self.gateway.next_answers = []
        await self.silence()

    async def test_private_addresses_are_not_asked(self) -> None:
        """Shows PSH-11."""
        gateway = PushGateway(self)
        server = await make_server(
            self, outgoing_http={"ca_files": PushGateway.trust()["ca_files"]}
        )
        alice, bob = await server.register(), await server.register()
        room_id = await alice.create_room(preset="public_chat")
        await bob.join(room_id)
        await gateway.add(bob)
        await alice.send(room_id)

        async def tried() -> Any:
            return await server.homeserver.db.read(
                lambda txn: txn.value("SELECT detail FROM push_log WHERE outcome = 'failed'")
            )

        self.assertIn("not permitted", await eventually(tried, "an attempt"))
        self.assertEqual(gateway.asked, 0)
