"""What messages in threads do to those who follow threads (MSC4306)."""

from __future__ import annotations

import json
from typing import Any

from tests.support.room_case import RoomTestCase, q
from tests.support.server import User

RULES = ".io.element.msc4306.rule"
FILTER = json.dumps({"room": {"timeline": {"unread_thread_notifications": True}}})


class ThreadNotificationsTest(RoomTestCase):
    async def begin(self) -> None:
        """Alice sends; Bob uses threads, Carol knows nothing of it."""
        await self.start()
        self.carol = await self.server.register("carol")
        for user in (self.bob, self.carol):
            await user.join(self.room_id)
        self.root = await self.alice.send(self.room_id, "root")
        self.other = await self.alice.send(self.room_id, "other")
        for user in (self.bob, self.carol):
            await user.ok("POST", f"/rooms/{q(self.room_id)}/receipt/m.read/{q(self.other)}", {})

    def path(self, root: str) -> str:
        prefix = "/_matrix/client/unstable/io.element.msc4306"
        return f"{prefix}/rooms/{q(self.room_id)}/thread/{q(root)}/subscription"

    async def follow(self, root: str, method: str = "PUT") -> None:
        await self.bob.ok(method, self.path(root), {} if method == "PUT" else None)

    async def say(
        self, root: str, body: str = "x", kind: str = "m.text", mentions: Any = None
    ) -> str:
        relation = {"rel_type": "m.thread", "event_id": root}
        content: dict[str, Any] = {"msgtype": kind, "body": body, "m.relates_to": relation}
        content |= {"m.mentions": mentions} if mentions else {}
        return await self.alice.send(self.room_id, content)

    async def counts(self, user: User) -> dict[str, tuple[int, int]]:
        """(notifications, highlights) in each thread."""
        room = (await user.sync(filter=FILTER))["rooms"]["join"][self.room_id]
        found = room.get("unread_thread_notifications", {})
        return {
            {self.root: "root", self.other: "other"}[root]: (
                count["notification_count"],
                count["highlight_count"],
            )
            for root, count in found.items()
        }

    async def notified(self, user: User) -> list[str]:
        """Texts of the newest notifications."""
        listed = (await user.ok("GET", "/notifications"))["notifications"]
        return [each["event"]["content"].get("body") for each in listed]

    async def test_threads_that_are_followed_and_others(self) -> None:
        await self.begin()
        await self.follow(self.root)
        for root in (self.root, self.other):
            await self.say(root)
            await self.say(root, kind="m.notice")
        self.assertEqual(await self.counts(self.bob), {"root": (1, 0)})
        self.assertEqual(await self.counts(self.carol), {"root": (1, 0), "other": (1, 0)})
        mentions = {"user_ids": [self.bob.user_id]}
        await self.say(self.other, "you", mentions=mentions)
        self.assertEqual(await self.counts(self.bob), {"root": (1, 0), "other": (1, 1)})
        self.assertEqual(await self.notified(self.bob), ["you", "x", "other", "root"])
        # What was decided stays so; who stops following is told of nothing more.
        await self.follow(self.root, "DELETE")
        await self.say(self.root)
        self.assertEqual(await self.counts(self.bob), {"root": (1, 0), "other": (1, 1)})
        await self.alice.send(self.room_id, "main")
        self.assertEqual((await self.notified(self.bob))[0], "main")

    async def test_whatever_the_room_does(self) -> None:
        """A room of which nothing is told, and one that is muted by an override."""
        await self.begin()
        await self.follow(self.root)
        room = f"/pushrules/global/room/{q(self.room_id)}"
        await self.bob.ok("PUT", room, {"actions": []})
        await self.say(self.root)
        await self.say(self.other)
        self.assertEqual(await self.counts(self.bob), {"root": (1, 0)})
        condition = {"kind": "event_match", "key": "room_id", "pattern": self.room_id}
        mute = {"actions": [], "conditions": [condition]}
        await self.bob.ok("PUT", "/pushrules/global/override/mute", mute)
        await self.say(self.root)
        await self.bob.ok("DELETE", "/pushrules/global/override/mute")
        await self.bob.ok("DELETE", room)
        self.assertEqual(await self.counts(self.bob), {"root": (1, 0)})

    async def test_own_rules_go_first(self) -> None:
        await self.begin()
        await self.follow(self.root)
        keyword = {"pattern": "tea", "actions": ["notify", {"set_tweak": "highlight"}]}
        await self.bob.ok("PUT", "/pushrules/global/content/tea", keyword)
        await self.say(self.other, "coffee")
        await self.say(self.other, "tea")
        await self.say(self.root, "coffee")
        self.assertEqual(await self.counts(self.bob), {"root": (1, 0), "other": (1, 1)})
        # The rules can be switched off.
        rule = f"/pushrules/global/postcontent/{RULES}.unsubscribed_thread"
        await self.bob.ok("PUT", f"{rule}/enabled", {"enabled": False})
        await self.say(self.other, "coffee")
        self.assertEqual((await self.counts(self.bob))["other"], (2, 1))

    async def test_rules_are_shown_and_are_the_servers(self) -> None:
        await self.begin()
        rules = (await self.bob.ok("GET", "/pushrules/"))["global"]["postcontent"]
        shown = {rule["rule_id"]: (rule["conditions"], rule["actions"]) for rule in rules}
        kind = "io.element.msc4306.thread_subscription"
        sound = {"set_tweak": "sound", "value": "default"}
        expected = {
            f"{RULES}.unsubscribed_thread": ([{"kind": kind, "subscribed": False}], []),
            f"{RULES}.subscribed_thread": ([{"kind": kind, "subscribed": True}], ["notify", sound]),
        }
        self.assertEqual(shown, expected)
        path = "/pushrules/global/postcontent/mine"
        condition = {"kind": kind, "subscribed": True}
        answer = await self.bob.call(
            "PUT", path, {"actions": ["notify"], "conditions": [condition]}
        )
        self.assertEqual((answer.status, answer.body["errcode"]), (400, "M_INVALID_PARAM"))
        for bad in ({"kind": kind}, {"kind": kind, "subscribed": "yes"}):
            body = {"actions": ["notify"], "conditions": [bad]}
            answer = await self.bob.call("PUT", "/pushrules/global/override/mine", body)
            self.assertEqual((answer.status, answer.body["errcode"]), (400, "M_BAD_JSON"))
