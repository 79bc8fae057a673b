"""Unread counts, as users see them in sync."""

from __future__ import annotations

import json
from typing import Any

import structlog
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

import homeserver.rooms.append
from homeserver.app import build
from storage.transaction import Transaction
from tests.homeserver.api.client.test_push_rules import put_rule
from tests.homeserver.api.client.test_receipts import ReceiptTestCase, read, thread
from tests.support.client import Client
from tests.support.server import User, make_server

THREADS = json.dumps({"room": {"timeline": {"unread_thread_notifications": True}}})
KEYWORD = {"actions": ["notify", {"set_tweak": "highlight"}], "pattern": "tea"}


def mute(room_id: str) -> dict[str, Any]:
    """The override rule by which clients mute a room."""
    condition = {"kind": "event_match", "key": "room_id", "pattern": room_id}
    return {"actions": [], "conditions": [condition]}


def mention(*user_ids: str, room: bool = False) -> dict[str, Any]:
    """The content of a message with mentions."""
    mentions: dict[str, Any] = {"user_ids": list(user_ids)}
    if room:
        mentions["room"] = True
    return {"msgtype": "m.text", "body": "hey", "m.mentions": mentions}


class UnreadTestCase(ReceiptTestCase):
    async def _counts(self, user: User | None = None, room_id: str | None = None) -> Any:
        """(notifications, highlights) of the whole room, from an initial sync."""
        answer = await (user or self.bob).sync()
        counts = answer["rooms"]["join"][room_id or self.room_id]["unread_notifications"]
        return counts["notification_count"], counts["highlight_count"]

    async def _by_thread(self, user: User | None = None) -> Any:
        """Counts of the main timeline under "main", and of threads under their roots."""
        answer = await (user or self.bob).sync(filter=THREADS)
        section = answer["rooms"]["join"][self.room_id]
        found = {"main": section["unread_notifications"], **section["unread_thread_notifications"]}
        return {
            name: (count["notification_count"], count["highlight_count"])
            for name, count in found.items()
        }


class CountsTest(UnreadTestCase):
    async def test_messages_count_for_others(self) -> None:
        """Shows PSH-7, PSH-8."""
        await self._meet()
        self.assertEqual(await self._counts(), (0, 0))
        await self.alice.send(self.room_id)
        await self.alice.send(self.room_id)
        self.assertEqual(await self._counts(), (2, 0))
        self.assertEqual(await self._counts(self.alice), (0, 0))

    async def test_encrypted_messages_count(self) -> None:
        """Shows PSH-8."""
        await self._meet()
        await self.alice.send(self.room_id, {"ciphertext": "x"}, "m.room.encrypted")
        self.assertEqual(await self._counts(), (1, 0))

    async def test_what_does_not_notify(self) -> None:
        """Shows PSH-2."""
        await self._meet()
        event_id = await self.alice.send(self.room_id)
        await read(self.bob, self.room_id, event_id)
        await self.alice.send(self.room_id, {"msgtype": "m.notice", "body": "note"})
        await self.alice.send(
            self.room_id,
            {"m.relates_to": {"rel_type": "m.annotation", "event_id": event_id, "key": "x"}},
            "m.reaction",
        )
        await self.alice.send(
            self.room_id,
            {
                "msgtype": "m.text",
                "body": "* new",
                "m.new_content": {"msgtype": "m.text", "body": "new"},
                "m.relates_to": {"rel_type": "m.replace", "event_id": event_id},
            },
        )
        await self.alice.set_state(self.room_id, "m.room.topic", {"topic": "t"})
        await self.alice.set_state(self.room_id, "m.room.server_acl", {"allow": ["*"]})
        carol = await self.server.register()
        await carol.join(self.room_id)
        self.assertEqual(await self._counts(), (0, 0))

    async def test_nothing_before_the_join_counts(self) -> None:
        """Shows PSH-8."""
        await self._meet()
        await self.alice.send(self.room_id)
        carol = await self.server.register()
        await carol.join(self.room_id)
        self.assertEqual(await self._counts(carol), (0, 0))
        await self.alice.send(self.room_id)
        self.assertEqual(await self._counts(carol), (1, 0))
        await carol.ok("PUT", f"/profile/{carol.user_id}/displayname", {"displayname": "Carol"})
        self.assertEqual(await self._counts(carol), (1, 0))
        await carol.leave(self.room_id)
        await self.alice.send(self.room_id)
        await carol.join(self.room_id)
        self.assertEqual(await self._counts(carol), (0, 0))

    async def test_mentions_highlight(self) -> None:
        """Shows PSH-8."""
        await self._meet()
        carol = await self.server.register()
        await carol.join(self.room_id)
        await self.alice.send(self.room_id, mention(self.bob.user_id, "@no:where", "nonsense"))
        self.assertEqual(await self._counts(), (1, 1))
        self.assertEqual(await self._counts(carol), (1, 0))
        await self.alice.send(self.room_id, mention(self.bob.user_id), "org.example.other")
        self.assertEqual(await self._counts(), (2, 2))
        self.assertEqual(await self._counts(carol), (1, 0))

    async def test_mentioning_the_room_takes_power(self) -> None:
        """Shows PSH-5, PSH-8."""
        await self._meet()
        await self.bob.send(self.room_id, mention(room=True))
        self.assertEqual(await self._counts(self.alice), (1, 0))
        await self.alice.send(self.room_id, mention(room=True))
        self.assertEqual(await self._counts(self.bob), (1, 1))

    async def test_receipts_clear(self) -> None:
        """Shows PSH-8, RCP-5, SYN-17."""
        await self._meet()
        first = await self.alice.send(self.room_id, mention(self.bob.user_id))
        second = await self.alice.send(self.room_id)
        third = await self.alice.send(self.room_id)
        since = (await self.bob.sync())["next_batch"]
        for event_id, left in ((first, (2, 0)), (second, (1, 0)), (first, (1, 0)), (third, (0, 0))):
            await read(self.bob, self.room_id, event_id)
            self.assertEqual(await self._counts(), left)
        answer = await self.bob.sync(since)
        counts = answer["rooms"]["join"][self.room_id]["unread_notifications"]
        self.assertEqual(counts, {"notification_count": 0, "highlight_count": 0})

    async def test_the_further_of_public_and_private_counts(self) -> None:
        """Shows RCP-5."""
        await self._meet()
        events = [await self.alice.send(self.room_id) for _ in range(3)]
        await read(self.bob, self.room_id, events[1], kind="m.read.private")
        self.assertEqual(await self._counts(), (1, 0))
        await read(self.bob, self.room_id, events[0])
        self.assertEqual(await self._counts(), (1, 0))
        await read(self.bob, self.room_id, events[2])
        self.assertEqual(await self._counts(), (0, 0))

    async def test_what_one_sends_is_read(self) -> None:
        """Shows RCP-5."""
        await self._meet()
        await self.alice.send(self.room_id, mention(self.bob.user_id))
        await self.bob.send(self.room_id)
        self.assertEqual(await self._counts(), (0, 0))
        await self.alice.send(self.room_id)
        self.assertEqual(await self._counts(), (1, 0))

    async def test_redactions_take_off(self) -> None:
        """Shows PSH-8."""
        await self._meet()
        events = [
            await self.alice.send(self.room_id),
            await self.alice.send(self.room_id, mention(self.bob.user_id)),
            await self.alice.send(self.room_id, mention(room=True)),
            await self.alice.send(self.room_id, mention(self.bob.user_id), "org.example.x"),
        ]
        expected = [(4, 3), (3, 3), (2, 2), (1, 1), (0, 0)]
        self.assertEqual(await self._counts(), expected[0])
        for number, event_id in enumerate(events):
            await self.alice.ok("PUT", f"/rooms/{self.room_id}/redact/{event_id}/r{number}", {})
            self.assertEqual(await self._counts(), expected[number + 1])

    async def test_counts_come_with_the_event(self) -> None:
        """Shows SYN-17."""
        await self._meet()
        since = (await self.bob.sync())["next_batch"]
        event_id = await self.alice.send(self.room_id, mention(self.bob.user_id))
        section = (await self.bob.sync(since))["rooms"]["join"][self.room_id]
        self.assertEqual(section["timeline"]["events"][0]["event_id"], event_id)
        self.assertEqual(
            section["unread_notifications"], {"notification_count": 1, "highlight_count": 1}
        )

    async def test_counts_survive_a_restart(self) -> None:
        """Shows PSH-8."""
        await self._meet()
        await put_rule(self.bob, "content", "tea", KEYWORD)
        await self.alice.send(self.room_id, "coffee")
        await self.alice.send(self.room_id, "some tea")
        before = await self._counts()
        self.assertEqual(before, (2, 1))
        await self.server.restart()
        self.assertEqual(await self._counts(), before)
        await self.alice.send(self.room_id, "more tea")
        self.assertEqual(await self._counts(), (3, 2))


class ThreadCountsTest(UnreadTestCase):
    async def test_threads_are_counted_apart(self) -> None:
        """Shows PSH-8, RCP-5, SYN-18."""
        await self._meet()
        root = await self.alice.send(self.room_id)
        other = await self.alice.send(self.room_id)
        first = await self.alice.send(self.room_id, thread(root))
        await self.alice.send(
            self.room_id, {**thread(root), "m.mentions": {"user_ids": [self.bob.user_id]}}
        )
        await self.alice.send(self.room_id, thread(other))
        self.assertEqual(await self._by_thread(), {"main": (2, 0), root: (2, 1), other: (1, 0)})
        self.assertEqual(await self._counts(), (5, 1))
        await read(self.bob, self.room_id, first, thread_id=root)
        self.assertEqual(await self._by_thread(), {"main": (2, 0), root: (1, 1), other: (1, 0)})
        await read(self.bob, self.room_id, other, thread_id="main")
        self.assertEqual(await self._by_thread(), {"main": (0, 0), root: (1, 1), other: (1, 0)})
        self.assertEqual(await self._counts(), (2, 1))

    async def test_an_unthreaded_receipt_clears_all(self) -> None:
        """Shows RCP-5, SYN-18."""
        await self._meet()
        root = await self.alice.send(self.room_id)
        reply = await self.alice.send(self.room_id, thread(root))
        self.assertEqual(await self._by_thread(), {"main": (1, 0), root: (1, 0)})
        await read(self.bob, self.room_id, root)
        self.assertEqual(await self._by_thread(), {"main": (0, 0), root: (1, 0)})
        await read(self.bob, self.room_id, reply)
        self.assertEqual(await self._by_thread(), {"main": (0, 0)})

    async def test_what_one_sends_is_read_in_its_thread(self) -> None:
        """Shows RCP-5."""
        await self._meet()
        root = await self.alice.send(self.room_id)
        other = await self.alice.send(self.room_id)
        await self.alice.send(self.room_id, thread(root))
        await self.alice.send(self.room_id, thread(other))
        await self.bob.send(self.room_id, thread(root))
        self.assertEqual(await self._by_thread(), {"main": (2, 0), other: (1, 0)})
        await self.bob.send(self.room_id)
        self.assertEqual(await self._by_thread(), {"main": (0, 0), other: (1, 0)})
        await self.alice.send(self.room_id, thread(root))
        self.assertEqual(await self._by_thread(), {"main": (0, 0), root: (1, 0), other: (1, 0)})

    async def test_redactions_in_threads(self) -> None:
        """Shows PSH-8."""
        await self._meet()
        root = await self.alice.send(self.room_id)
        reply = await self.alice.send(
            self.room_id, {**thread(root), "m.mentions": {"user_ids": [self.bob.user_id]}}
        )
        await self.alice.send(self.room_id, thread(root))
        self.assertEqual(await self._by_thread(), {"main": (1, 0), root: (2, 1)})
        await self.alice.ok("PUT", f"/rooms/{self.room_id}/redact/{reply}/r", {})
        self.assertEqual(await self._by_thread(), {"main": (1, 0), root: (1, 0)})


class OwnRulesTest(UnreadTestCase):
    async def test_keywords(self) -> None:
        """Shows PSH-1, PSH-3, PSH-8."""
        await self._meet()
        await put_rule(self.bob, "content", "tea", KEYWORD)
        await self.alice.send(self.room_id, "steam")
        self.assertEqual(await self._counts(), (1, 0))
        await self.alice.send(self.room_id, "TEA, please")
        self.assertEqual(await self._counts(), (2, 1))
        await self.alice.send(self.room_id, {"msgtype": "m.notice", "body": "tea"})
        self.assertEqual(await self._counts(), (2, 1))
        self.assertEqual(await self._counts(self.alice), (0, 0))
        await self.bob.ok("DELETE", "/pushrules/global/content/tea")
        await self.alice.send(self.room_id, "tea")
        self.assertEqual(await self._counts(), (3, 1))

    async def test_a_rule_takes_effect_at_once_again_and_again(self) -> None:
        await self._meet()
        path = "/pushrules/global/content/tea"
        await put_rule(self.bob, "content", "other", {"actions": [], "pattern": "zzz"})
        for number in (1, 2, 3):
            await put_rule(self.bob, "content", "tea", KEYWORD)
            await self.alice.send(self.room_id, "tea")
            self.assertEqual((await self._counts())[1], number)
            await self.bob.ok("DELETE", path)
            await self.alice.send(self.room_id, "tea")
            self.assertEqual((await self._counts())[1], number)

    async def test_a_rule_about_another_room_comes_first(self) -> None:
        await self._meet()
        await put_rule(self.bob, "room", "!other:hearth.test", {"actions": ["notify"]})
        await self.alice.send(self.room_id, "tea")
        await put_rule(self.bob, "content", "tea", KEYWORD)
        await self.alice.send(self.room_id, "tea")
        self.assertEqual(await self._counts(), (2, 1))

    async def test_muted_rooms_are_zero(self) -> None:
        """Shows PSH-8."""
        await self._meet()
        await self.alice.send(self.room_id)
        await put_rule(self.bob, "override", "mute", mute(self.room_id))
        await self.alice.send(self.room_id, mention(self.bob.user_id, room=True))
        await self.alice.send(self.room_id, thread(await self.alice.send(self.room_id)))
        self.assertEqual(await self._counts(), (0, 0))
        self.assertEqual(await self._by_thread(), {"main": (0, 0)})
        other = await self.alice.create_room(preset="public_chat")
        await self.bob.join(other)
        await self.alice.send(other)
        self.assertEqual(await self._counts(room_id=other), (1, 0))

    async def test_master_silences_everything(self) -> None:
        """Shows PSH-1."""
        await self._meet()
        await put_rule(self.bob, "content", "tea", KEYWORD)
        await self.bob.ok(
            "PUT", "/pushrules/global/override/.m.rule.master/enabled", {"enabled": True}
        )
        await self.alice.send(self.room_id, "tea")
        self.assertEqual(await self._counts(), (0, 0))

    async def test_mentions_only_in_a_room(self) -> None:
        """Shows PSH-1, PSH-8."""
        await self._meet()
        await put_rule(self.bob, "room", self.room_id)
        root = await self.alice.send(self.room_id)
        await self.alice.send(self.room_id, thread(root))
        self.assertEqual(await self._counts(), (0, 0))
        await self.alice.send(self.room_id, mention(self.bob.user_id))
        self.assertEqual(await self._counts(), (1, 1))
        gone = await self.alice.send(self.room_id, mention(room=True))
        self.assertEqual(await self._counts(), (2, 2))
        await self.alice.ok("PUT", f"/rooms/{self.room_id}/redact/{gone}/r", {})
        self.assertEqual(await self._counts(), (1, 1))
        await put_rule(self.bob, "content", "tea", KEYWORD)
        await self.alice.send(self.room_id, "tea")
        self.assertEqual(await self._counts(), (2, 2))
        await self.alice.send(self.room_id, {**thread(root), "body": "tea"})
        self.assertEqual((await self._by_thread())[root], (1, 1))

    async def test_mentions_only_everywhere(self) -> None:
        """Shows PSH-1, PSH-8."""
        await self._meet()
        for name in (
            "message",
            "encrypted",
            "room_one_to_one",
            "encrypted_room_one_to_one",
        ):
            await self.bob.ok(
                "PUT", f"/pushrules/global/underride/.m.rule.{name}/actions", {"actions": []}
            )
        await self.alice.send(self.room_id)
        self.assertEqual(await self._counts(), (0, 0))
        await self.alice.send(self.room_id, {"call_id": "c"}, "m.call.invite")
        self.assertEqual(await self._counts(), (1, 0))
        await self.alice.send(self.room_id, mention(self.bob.user_id))
        self.assertEqual(await self._counts(), (2, 1))

    async def test_messages_of_two_person_rooms_only(self) -> None:
        """Shows PSH-5."""
        await self._meet()
        await self.bob.ok(
            "PUT", "/pushrules/global/underride/.m.rule.message/actions", {"actions": []}
        )
        await self.bob.ok(
            "PUT", "/pushrules/global/underride/.m.rule.encrypted/actions", {"actions": []}
        )
        await self.alice.send(self.room_id)
        self.assertEqual(await self._counts(), (1, 0))
        carol = await self.server.register()
        await carol.join(self.room_id)
        await self.alice.send(self.room_id)
        self.assertEqual(await self._counts(), (1, 0))
        await carol.leave(self.room_id)
        await self.alice.send(self.room_id)
        self.assertEqual(await self._counts(), (2, 0))

    async def test_a_sender_who_is_silenced(self) -> None:
        """Shows PSH-1."""
        await self._meet()
        carol = await self.server.register()
        await carol.join(self.room_id)
        await put_rule(self.bob, "sender", carol.user_id)
        await carol.send(self.room_id)
        self.assertEqual(await self._counts(), (0, 0))
        await self.alice.send(self.room_id)
        self.assertEqual(await self._counts(), (1, 0))
        await carol.send(self.room_id, mention(self.bob.user_id))
        self.assertEqual(await self._counts(), (2, 1))

    async def test_a_mention_that_does_not_highlight(self) -> None:
        """Shows PSH-6."""
        await self._meet()
        path = "/pushrules/global/override/.m.rule.is_user_mention/enabled"
        await self.bob.ok("PUT", path, {"enabled": False})
        await self.alice.send(self.room_id, mention(self.bob.user_id))
        self.assertEqual(await self._counts(), (1, 0))

    async def test_by_power_and_property(self) -> None:
        """Shows PSH-4, PSH-5."""
        await self._meet()
        await put_rule(
            self.bob,
            "override",
            "alarm",
            {
                "actions": ["notify", {"set_tweak": "highlight"}],
                "conditions": [
                    {"kind": "sender_notification_permission", "key": "room"},
                    {"kind": "event_property_is", "key": "content.alarm", "value": 1},
                ],
            },
        )
        await put_rule(
            self.alice,
            "override",
            "alarm",
            {
                "actions": ["notify", {"set_tweak": "highlight"}],
                "conditions": [
                    {"kind": "sender_notification_permission", "key": "room"},
                ],
            },
        )
        for value, expected in ((True, (0, 0)), ("1", (0, 0)), (1, (1, 1))):
            await self.alice.send(self.room_id, {"alarm": value}, "org.example.alarm")
            self.assertEqual(await self._counts(), expected, value)
        await self.bob.send(self.room_id, {"alarm": 1}, "org.example.alarm")
        self.assertEqual(await self._counts(self.alice), (0, 0))

    async def test_the_name_in_the_room(self) -> None:
        await self._meet()
        await put_rule(
            self.bob,
            "override",
            "name",
            {
                "actions": ["notify", {"set_tweak": "highlight"}],
                "conditions": [{"kind": "contains_display_name"}],
            },
        )
        await self.bob.ok(
            "PUT", f"/profile/{self.bob.user_id}/displayname", {"displayname": "Robert"}
        )
        await self.alice.send(self.room_id, "hello robert!")
        self.assertEqual(await self._counts(), (1, 1))
        await self.alice.send(self.room_id, "hello roberta!")
        self.assertEqual(await self._counts(), (2, 1))

    async def test_rules_set_before_joining(self) -> None:
        await self._meet()
        carol = await self.server.register()
        await put_rule(carol, "content", "tea", KEYWORD)
        await self.alice.send(self.room_id)
        await carol.join(self.room_id)
        await self.alice.send(self.room_id, "tea")
        self.assertEqual(await self._counts(carol), (1, 1))
        await carol.leave(self.room_id)
        await self.alice.send(self.room_id, "tea")
        await carol.join(self.room_id)
        self.assertEqual(await self._counts(carol), (0, 0))


class ProcessesTest(UnreadTestCase):
    async def test_rules_that_another_process_changed(self) -> None:
        await self._meet()
        there = await build(self.server.homeserver.config, reactor, structlog.get_logger())
        self.addCleanup(lambda: Deferred.fromCoroutine(there.stop()))
        client = Client(there.router, self.alice.token)
        path = f"/_matrix/client/v3/rooms/{self.room_id}/send/m.room.message"
        content = {"msgtype": "m.text", "body": "tea"}
        highlights = 0
        for number, word in enumerate(["milk", "tea", "milk", "tea"]):
            await put_rule(self.bob, "content", "word", {**KEYWORD, "pattern": word})
            await there.db.look()
            status, _ = await client.put(f"{path}/{number}", content)
            self.assertEqual(status, 200)
            await self.server.homeserver.db.look()
            highlights += word == "tea"
            self.assertEqual(await self._counts(), (number + 1, highlights))


class InvitesTest(TestCase):
    async def test_an_invite_notifies(self) -> None:
        """Shows PSH-9."""
        server = await make_server(self)
        alice, bob, carol = [await server.register() for _ in range(3)]
        path = "/pushrules/global/override/.m.rule.invite_for_me/enabled"
        await carol.ok("PUT", path, {"enabled": False})
        room_id = await alice.create_room()
        await alice.invite(room_id, bob.user_id)
        await alice.invite(room_id, carol.user_id)
        rows = await server.homeserver.db.read(
            lambda txn: txn.all("SELECT user_id, notify, highlight FROM notify_marks")
        )
        self.assertEqual(rows, [(bob.user_id, 1, 0)])
        await bob.join(room_id)
        section = (await bob.sync())["rooms"]["join"][room_id]
        self.assertEqual(section["unread_notifications"]["notification_count"], 0)


class CostTest(UnreadTestCase):
    async def _statements(self, user: User, content: Any = "hello") -> int:
        """Statements of the transaction that adds a message in the general way."""
        append: Any = homeserver.rooms.append
        counted: list[int] = []
        commit = append.commit_group

        def counting(txn: Transaction, *args: Any) -> Any:
            result = commit(txn, *args)
            counted.append(txn.statements)
            return result

        self.patch(append, "commit_group", counting)
        short = self.patch(append.Appender, "_is_shared", lambda *_: True)
        await user.send(self.room_id, content)
        short.restore()
        self.patch(append, "commit_group", commit)
        [statements] = counted
        return statements

    async def _rows(self) -> int:
        count: int = await self.server.homeserver.db.read(
            lambda txn: txn.value("SELECT COUNT(*) FROM notify_marks")
        )
        return count

    async def test_own_rules_cost_a_message_nothing_where_nobody_has_them(self) -> None:
        await self._meet()
        await self.alice.send(self.room_id)
        plain = await self._statements(self.alice)
        await put_rule(self.bob, "override", "mute", mute(self.room_id))
        await self.alice.send(self.room_id)
        self.assertEqual(await self._statements(self.alice), plain)
        self.assertEqual(await self._rows(), 0)
        await put_rule(self.bob, "room", self.room_id)
        await self.bob.ok("DELETE", "/pushrules/global/override/mute")
        await self.alice.send(self.room_id)
        self.assertEqual(await self._statements(self.alice), plain)
        self.assertEqual(await self._rows(), 0)
        await put_rule(self.bob, "content", "tea", KEYWORD)
        self.assertLessEqual(await self._statements(self.alice), plain + 2)
        self.assertEqual(await self._statements(self.alice), plain)
        self.assertEqual(await self._rows(), 0)
        self.assertEqual(await self._statements(self.alice, "tea"), plain + 1)
        self.assertEqual(await self._rows(), 1)
