"""The list of what a user was notified of."""

from __future__ import annotations

from typing import Any

from tests.homeserver.api.client.test_push_rules import put_rule
from tests.homeserver.api.client.test_receipts import read, thread
from tests.homeserver.rooms.test_unread import UnreadTestCase, mention, mute
from tests.support.server import User


async def listed(user: User, **query: Any) -> Any:
    """The answer."""
    return await user.ok("GET", "/notifications", query=query)


def ids(answer: Any) -> list[str]:
    return [entry["event"]["event_id"] for entry in answer["notifications"]]


class NotificationsTest(UnreadTestCase):
    async def test_what_is_listed(self) -> None:
        """Shows PSH-12."""
        await self._meet()
        self.assertEqual(await listed(self.bob), {"notifications": []})
        first = await self.alice.send(self.room_id, "one")
        await self.alice.send(self.room_id, {"msgtype": "m.notice", "body": "note"})
        second = await self.alice.send(self.room_id, mention(self.bob.user_id))
        await self.bob.send(self.room_id, "mine")
        redacted = await self.alice.send(self.room_id, "gone")
        await self.alice.ok("PUT", f"/rooms/{self.room_id}/redact/{redacted}/r1", {})
        answer = await listed(self.bob)
        self.assertEqual(ids(answer), [second, first])
        newest = answer["notifications"][0]
        highlight = ["notify", {"set_tweak": "sound", "value": "default"}]
        self.assertEqual(newest["actions"], [*highlight, {"set_tweak": "highlight"}])
        self.assertEqual((newest["room_id"], newest["read"]), (self.room_id, True))
        self.assertEqual(newest["ts"], newest["event"]["origin_server_ts"])
        self.assertNotIn("room_id", newest["event"])
        self.assertEqual(newest["event"]["content"], mention(self.bob.user_id))
        self.assertNotIn("next_token", answer)
        self.assertEqual(ids(await listed(self.bob, only="highlight")), [second])
        self.assertEqual(len(ids(await listed(self.alice))), 1)

    async def test_read_flags(self) -> None:
        """Shows PSH-12."""
        await self._meet()
        root = await self.alice.send(self.room_id)
        in_thread = await self.alice.send(self.room_id, thread(root))
        last = await self.alice.send(self.room_id)
        await read(self.bob, self.room_id, root, thread_id="main")

        async def flags() -> dict[str, bool]:
            entries = (await listed(self.bob))["notifications"]
            return {entry["event"]["event_id"]: entry["read"] for entry in entries}

        self.assertEqual(await flags(), {root: True, in_thread: False, last: False})
        await read(self.bob, self.room_id, in_thread, thread_id=root, kind="m.read.private")
        self.assertEqual(await flags(), {root: True, in_thread: True, last: False})
        await read(self.bob, self.room_id, last)
        self.assertEqual(await flags(), {root: True, in_thread: True, last: True})

    async def test_pages_over_rooms(self) -> None:
        """Shows PSH-12."""
        await self._meet()
        others = [await self.alice.create_room(preset="public_chat") for _ in range(3)]
        for room_id in others:
            await self.bob.join(room_id)
        sent = []
        for number in range(14):
            room_id = [self.room_id, *others][number * 7 % 4]
            content = mention(self.bob.user_id) if number % 3 == 0 else f"m{number}"
            sent.append(await self.alice.send(room_id, content))
        for limit, only in ((1, None), (4, None), (5, None), (14, None), (2, "highlight")):
            wanted = sent[::-1] if only is None else sent[::3][::-1]
            found, token, pages = [], None, 0
            while pages == 0 or token is not None:
                query = {"limit": limit} | ({"only": only} if only else {})
                answer = await listed(self.bob, **query, **({"from": token} if token else {}))
                self.assertLessEqual(len(ids(answer)), limit)
                found += ids(answer)
                token = answer.get("next_token")
                pages += 1
                self.assertLess(pages, 20)
            self.assertEqual(found, wanted, (limit, only))

    async def test_rules_of_the_user(self) -> None:
        """Shows PSH-12."""
        await self._meet()
        muted = await self.alice.create_room(preset="public_chat")
        quiet = await self.alice.create_room(preset="public_chat")
        for room_id in (muted, quiet):
            await self.bob.join(room_id)
        await put_rule(self.bob, "override", "muted", mute(muted))
        await put_rule(self.bob, "room", quiet)
        loud = {"actions": ["notify", {"set_tweak": "highlight"}], "pattern": "tea"}
        await put_rule(self.bob, "content", "tea", loud)
        await self.alice.send(muted, mention(self.bob.user_id))
        await self.alice.send(quiet, "nothing")
        keyword = await self.alice.send(quiet, "some tea")
        mentioned = await self.alice.send(quiet, mention(self.bob.user_id))
        plain = await self.alice.send(self.room_id, "plain")
        self.assertEqual(ids(await listed(self.bob)), [plain, mentioned, keyword])
        self.assertEqual(ids(await listed(self.bob, only="highlight")), [mentioned, keyword])
        ignored: dict[str, Any] = {"ignored_users": {self.alice.user_id: {}}}
        path = f"/user/{self.bob.user_id}/account_data/m.ignored_user_list"
        await self.bob.ok("PUT", path, ignored)
        self.assertEqual(ids(await listed(self.bob)), [])

    async def test_invites_and_rooms_that_were_left(self) -> None:
        """Shows PSH-9, PSH-12."""
        await self._meet()
        await self.alice.send(self.room_id)
        other = await self.alice.create_room()
        await self.alice.invite(other, self.bob.user_id)
        answer = await listed(self.bob)
        self.assertEqual(answer["notifications"][0]["room_id"], other)
        self.assertEqual(answer["notifications"][0]["event"]["content"]["membership"], "invite")
        await self.bob.leave(other)
        await self.bob.leave(self.room_id)
        self.assertEqual(ids(await listed(self.bob)), [])
        await self.bob.join(self.room_id)
        self.assertEqual(ids(await listed(self.bob)), [])

    async def test_bad_requests(self) -> None:
        """Shows PSH-12."""
        await self._meet()
        for query in (
            {"from": "x"},
            {"from": "n"},
            {"from": "n1\x00"},
            {"from": "n" + "9" * 30},
            {"limit": "0"},
            {"limit": "-1"},
            {"limit": "x"},
            {"limit": "9" * 17},
        ):
            status, answer = await self.bob.call("GET", "/notifications", query=query)
            self.assertEqual((status, answer["errcode"]), (400, "M_INVALID_PARAM"), query)
        self.assertEqual(ids(await listed(self.bob, **{"from": "n0"})), [])
