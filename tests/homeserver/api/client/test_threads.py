"""The list of a room's threads."""

from __future__ import annotations

from typing import Any

from tests.homeserver.api.client.test_relations import RelationsCase
from tests.support.client import Answer
from tests.support.room_case import q
from tests.support.server import User


class ThreadsTest(RelationsCase):
    async def ask(self, user: User, **query: Any) -> Answer:
        path = f"/_matrix/client/v1/rooms/{q(self.room_id)}/threads"
        return await user.call("GET", path, query=query)

    async def listed(self, user: User, **query: Any) -> list[str]:
        status, body = await self.ask(user, **query)
        self.assertEqual(status, 200, body)
        return [event["event_id"] for event in body["chunk"]]

    async def begin(self, *texts: str) -> list[str]:
        """Roots of threads, each with an event."""
        roots = [await self.alice.send(self.room_id, text) for text in texts]
        for root in roots:
            await self.relate(self.alice, "m.thread", root)
        return roots

    async def test_the_newest_activity_first_with_aggregations(self) -> None:
        """Shows REL-10, REL-8."""
        await self.start()
        one, two, three = await self.begin("1", "2", "3")
        await self.alice.send(self.room_id, "no thread")
        self.assertEqual(await self.listed(self.alice), [three, two, one])
        latest = await self.relate(self.alice, "m.thread", one)
        body = (await self.ask(self.alice)).body
        self.assertEqual([e["event_id"] for e in body["chunk"]], [one, three, two])
        self.assertNotIn("next_batch", body)
        thread = body["chunk"][0]["unsigned"]["m.relations"]["m.thread"]
        self.assertEqual((thread["count"], thread["latest_event"]["event_id"]), (2, latest))
        # Reactions and edits in a thread are no activity.
        await self.relate(self.alice, "m.annotation", two, "m.reaction", key="+")
        await self.edit(self.alice, two)
        self.assertEqual(await self.listed(self.alice), [one, three, two])

    async def test_pages(self) -> None:
        """Shows REL-10."""
        await self.start()
        roots = await self.begin(*"abcde")
        seen: list[str] = []
        query: dict[str, Any] = {"limit": 2}
        for size in (2, 2, 1):
            body = (await self.ask(self.alice, **query)).body
            self.assertEqual(len(body["chunk"]), size)
            seen += [event["event_id"] for event in body["chunk"]]
            query["from"] = body.get("next_batch")
        self.assertIsNone(query["from"])
        self.assertEqual(seen, roots[::-1])

    async def test_those_one_takes_part_in(self) -> None:
        """Shows REL-10."""
        await self.start()
        await self.bob.join(self.room_id)
        one, two = await self.begin("1", "2")
        three = await self.bob.send(self.room_id, "3")
        await self.relate(self.alice, "m.thread", three)
        await self.relate(self.bob, "m.thread", one)
        self.assertEqual(await self.listed(self.bob, include="participated"), [one, three])
        self.assertEqual(await self.listed(self.alice, include="participated"), [one, three, two])
        self.assertEqual(await self.listed(self.bob, include="all"), [one, three, two])

    async def test_ignored_users(self) -> None:
        """Shows REL-7, REL-10."""
        await self.start()
        await self.bob.join(self.room_id)
        one, two = await self.begin("1", "2")
        await self.relate(self.bob, "m.thread", one)
        theirs = await self.bob.send(self.room_id, "theirs")
        await self.relate(self.alice, "m.thread", theirs)
        await self.alice.ok(
            "PUT",
            f"/user/{q(self.alice.user_id)}/account_data/m.ignored_user_list",
            {"ignored_users": {self.bob.user_id: {}}},
        )
        chunk = (await self.ask(self.alice)).body["chunk"]
        self.assertEqual([event["event_id"] for event in chunk], [theirs, two, one])
        self.assertEqual([bool(event["content"]) for event in chunk], [False, True, True])

    async def test_redacted_events_are_no_activity(self) -> None:
        """Shows REL-6, REL-10."""
        await self.start()
        one, two = await self.begin("1", "2")
        again = await self.relate(self.alice, "m.thread", one)
        await self.put_ok(self.alice, f"redact/{q(again)}/1", {})
        self.assertEqual(await self.listed(self.alice), [two, one])
        await self.put_ok(self.alice, f"redact/{q(one)}/2", {})
        self.assertEqual(await self.listed(self.alice), [two, one])

    async def test_what_one_may_see(self) -> None:
        """Shows REL-10."""
        await self.start()
        self.assert_error(await self.ask(self.bob), 403, "M_FORBIDDEN")
        await self.bob.join(self.room_id)
        one, two = await self.begin("1", "2")
        await self.bob.leave(self.room_id)
        await self.relate(self.alice, "m.thread", one)
        await self.begin("3")
        self.assertEqual(await self.listed(self.bob), [two, one])

    async def test_bad_requests(self) -> None:
        """Shows REL-10."""
        await self.start()
        for query in ({"limit": 0}, {"limit": "x"}, {"include": "none"}, {"from": "what"}):
            self.assert_error(await self.ask(self.alice, **query), 400, "M_INVALID_PARAM")
        token = await self.now()
        self.assert_error(await self.ask(self.alice, **{"from": token}), 400, "M_INVALID_PARAM")
