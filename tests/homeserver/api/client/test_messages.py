"""`/messages`: the pages of a room's history."""

from __future__ import annotations

import itertools
import json
from typing import Any

from homeserver.core.tokens import PaginationToken
from homeserver.rooms import timeline as timeline_module
from storage import events
from storage.events import EventRow
from storage.transaction import Transaction
from tests.support.room_case import RoomTestCase, q
from tests.support.server import User


class MessagesTest(RoomTestCase):
    async def all_pages(self, user: User, direction: str, limit: int, **query: Any) -> list[Any]:
        """All pages, each as the server gave it."""
        pages = []
        while True:
            page = await self.get(user, "messages", dir=direction, limit=limit, **query)
            pages.append(page)
            if "end" not in page:
                return pages
            query["from"] = page["end"]

    def ids_of(self, pages: list[Any]) -> list[str]:
        return [event["event_id"] for page in pages for event in page["chunk"]]

    async def test_pages_both_ways(self) -> None:
        """Shows RD-1."""
        await self.start()
        sent = [await self.alice.send(self.room_id, str(n)) for n in range(25)]
        back = await self.all_pages(self.alice, "b", 4)
        self.assertEqual(self.ids_of(back)[:25], sent[::-1])
        types = [event["type"] for page in back for event in page["chunk"]]
        self.assertEqual(types[-1], "m.room.create")
        self.assertEqual([len(page["chunk"]) for page in back[:-1]], [4] * (len(back) - 1))
        forward = await self.all_pages(self.alice, "f", 4)
        self.assertEqual(self.ids_of(forward), self.ids_of(back)[::-1])
        for pages in (back, forward):
            for one, other in itertools.pairwise(pages):
                self.assertEqual(other["start"], one["end"])
            self.assertNotIn("end", pages[-1])

    async def test_the_last_page_has_no_end_even_if_it_is_full(self) -> None:
        """Shows RD-1."""
        await self.start()
        count = len(await self.messages(self.alice))
        for direction in "bf":
            page = await self.get(self.alice, "messages", dir=direction, limit=count)
            self.assertEqual(len(page["chunk"]), count)
            self.assertNotIn("end", page)
            page = await self.get(self.alice, "messages", dir=direction, limit=count - 1)
            self.assertIn("end", page)

    async def test_tokens_of_messages_work_both_ways(self) -> None:
        """Shows RD-1."""
        await self.start()
        for n in range(10):
            await self.alice.send(self.room_id, str(n))
        page = await self.get(self.alice, "messages", dir="b", limit=4)
        there = [event["event_id"] for event in page["chunk"]]
        back = await self.ids(self.alice, dir="f", limit=4, **{"from": page["end"]})
        self.assertEqual(back, there[::-1])
        again = await self.ids(self.alice, dir="b", limit=4, **{"from": page["start"]})
        self.assertEqual(again, there)

    async def test_tokens_of_sync(self) -> None:
        """Shows RD-1."""
        await self.start()
        before = [await self.alice.send(self.room_id, str(n)) for n in range(3)]
        token = await self.now()
        after = [await self.alice.send(self.room_id, str(n)) for n in range(3)]
        found = await self.ids(self.alice, dir="b", limit=3, **{"from": token})
        self.assertEqual(found, before[::-1])
        page = await self.get(self.alice, "messages", dir="f", limit=2, **{"from": token})
        self.assertEqual(page["start"], token)
        self.assertEqual([event["event_id"] for event in page["chunk"]], after[:2])
        rest = await self.ids(self.alice, dir="f", **{"from": page["end"]})
        self.assertEqual(rest, after[2:])
        self.assertEqual(await self.ids(self.alice, dir="f", **{"from": await self.now()}), [])

    async def test_to(self) -> None:
        """Shows RD-1."""
        await self.start()
        for n in range(3):
            await self.alice.send(self.room_id, str(n))
        token = await self.now()
        sent = [await self.alice.send(self.room_id, str(n)) for n in range(5)]
        page = await self.get(self.alice, "messages", dir="b", to=token)
        self.assertEqual([event["event_id"] for event in page["chunk"]], sent[::-1])
        self.assertNotIn("end", page)
        page = await self.get(self.alice, "messages", dir="b", limit=2)
        found = await self.ids(self.alice, dir="b", to=token, **{"from": page["end"]})
        self.assertEqual(found, sent[2::-1])
        found = await self.ids(self.alice, dir="f", to=page["end"], **{"from": token})
        self.assertEqual(found, sent[:3])
        later = await self.now()
        await self.alice.send(self.room_id, "later")
        self.assertEqual(await self.ids(self.alice, dir="f", to=later, **{"from": token}), sent)

    async def test_limits(self) -> None:
        """Shows RD-1."""
        await self.start()
        for n in range(12):
            await self.alice.send(self.room_id, str(n))
        self.assertEqual(len(await self.ids(self.alice, dir="b")), 10)
        self.patch(timeline_module, "MAX_LIMIT", 5)
        self.assertEqual(len(await self.ids(self.alice, dir="b", limit=2**40)), 5)
        page = await self.get(self.alice, "messages", dir="b", limit=0)
        self.assertEqual(page["chunk"], [])
        self.assertEqual(page["end"], page["start"])

    async def test_bad_parameters(self) -> None:
        """Shows RD-9."""
        await self.start()
        for query in (
            "dir=b&limit=-1",
            "dir=b&limit=x",
            "dir=b&limit=1.5",
            "dir=b&limit=99999999999999999999",
            "dir=b&limit=",
            "dir=x",
            "dir=b&from=nonsense",
            "dir=b&to=nonsense",
            "dir=b&from=t1-99999999999999999999",
            "dir=b&from=s1",
            "dir=b&filter={",
            "dir=b&filter=[]",
            "dir=b&filter=%7B%22limit%22:-1%7D",
            "dir=b&filter=%7B%22types%22:5%7D",
        ):
            status, answer = await self.alice.call(
                "GET", f"/rooms/{q(self.room_id)}/messages?{query}"
            )
            self.assertEqual(status, 400, (query, answer))
        answer = await self.alice.call("GET", f"/rooms/{q(self.room_id)}/messages")
        self.assert_error(answer, 400, "M_MISSING_PARAM")
        event_id = q(await self.alice.send(self.room_id))
        for path in (f"context/{event_id}?limit=-1", f"context/{event_id}?limit=x", "members?at=x"):
            status, _ = await self.alice.call("GET", f"/rooms/{q(self.room_id)}/{path}")
            self.assertEqual(status, 400, path)

    async def test_filters(self) -> None:
        await self.start()
        await self.bob.join(self.room_id)
        mine = await self.alice.send(self.room_id, "mine")
        image = await self.alice.send(self.room_id, {"url": "mxc://a/b"}, "image")
        his = await self.bob.send(self.room_id, "his")
        relates = {"rel_type": "m.annotation", "event_id": mine, "key": "+"}
        reaction = await self.bob.send(self.room_id, {"m.relates_to": relates}, "m.reaction")

        async def found(**wanted: Any) -> list[str]:
            return await self.ids(self.alice, dir="f", limit=50, filter=json.dumps(wanted))

        everything = await found()
        self.assertEqual(await found(types=["m.room.message"]), [mine, his])
        self.assertEqual(await found(types=["im*", "m.reaction"]), [image, reaction])
        self.assertEqual((await found(senders=[self.bob.user_id]))[1:], [his, reaction])
        self.assertEqual((await found(not_senders=[self.alice.user_id]))[1:], [his, reaction])
        self.assertEqual(await found(contains_url=True), [image])
        self.assertNotIn(image, await found(contains_url=False))
        self.assertEqual(await found(rel_types=["m.annotation"]), [reaction])
        self.assertNotIn(reaction, await found(not_rel_types=["m.annotation"]))
        self.assertEqual(await found(related_by_rel_types=["m.annotation"]), [mine])
        self.assertEqual(await found(related_by_senders=[self.bob.user_id]), [mine])
        self.assertEqual(await found(related_by_senders=[self.alice.user_id]), [])
        self.assertEqual(await found(not_rooms=[self.room_id]), [])
        self.assertEqual(await found(rooms=[self.room_id]), everything)
        self.assertEqual(await found(types=[]), [])
        self.assertEqual(len(await self.ids(self.alice, dir="f", filter='{"limit": 2}')), 2)

    async def test_what_a_filter_leaves_out_does_not_end_the_history(self) -> None:
        """Shows RD-1."""
        await self.start()
        self.patch(timeline_module, "WINDOW", 5)
        wanted = []
        for n in range(20):
            event_id = await self.alice.send(self.room_id, {"n": n}, "rare" if n % 9 == 0 else "x")
            if n % 9 == 0:
                wanted.append(event_id)
        for direction, expected in (("f", wanted), ("b", wanted[::-1])):
            pages = await self.all_pages(self.alice, direction, 10, filter='{"types": ["rare"]}')
            self.assertEqual(self.ids_of(pages), expected)
            self.assertGreater(len(pages), 3)

    async def test_lazy_loaded_members(self) -> None:
        await self.start()
        await self.bob.join(self.room_id)
        token = await self.now()
        await self.bob.send(self.room_id)
        query = {"from": token, "filter": '{"lazy_load_members": true}'}
        page = await self.get(self.alice, "messages", dir="f", **query)
        members = [(e["type"], e["state_key"], e["content"]["membership"]) for e in page["state"]]
        self.assertEqual(members, [("m.room.member", self.bob.user_id, "join")])
        page = await self.get(self.alice, "messages", dir="f", **{"from": token})
        self.assertNotIn("state", page)

    async def test_ignored_senders_are_left_out(self) -> None:
        await self.start()
        await self.bob.join(self.room_id)
        hidden = await self.bob.send(self.room_id)
        shown = await self.alice.send(self.room_id)
        await self.alice.ok(
            "PUT",
            f"/user/{q(self.alice.user_id)}/account_data/m.ignored_user_list",
            {"ignored_users": {self.bob.user_id: {}}},
        )
        found = await self.messages(self.alice)
        ids = [event["event_id"] for event in found]
        self.assertIn(shown, ids)
        self.assertNotIn(hidden, ids)
        # State is shown all the same.
        self.assertIn(self.bob.user_id, [event.get("state_key") for event in found])

    async def test_names_that_nobody_can_have_do_no_harm(self) -> None:
        """U+0000 in lists of users and types: no database could find such a thing."""
        await self.start()
        sent = await self.alice.send(self.room_id)
        path = f"/user/{q(self.alice.user_id)}/account_data/m.ignored_user_list"
        await self.alice.ok("PUT", path, {"ignored_users": {"@a\0b:hearth.test": {}}})
        self.assertIn(sent, await self.ids(self.alice, dir="b"))
        await self.get(self.alice, f"context/{q(sent)}")
        for wanted in ({"types": ["m\0"]}, {"senders": ["@a\0b:hearth.test"]}):
            found = await self.get(self.alice, "messages", dir="b", filter=json.dumps(wanted))
            self.assertEqual(found["chunk"], [])

    async def insert(self, like: str, depth: int, pos: int, name: str) -> None:
        """Put an event into the room's history, as fetching it from elsewhere would."""

        def write(txn: Transaction) -> None:
            row = events.get(txn, like)
            assert row is not None
            fetched = row._replace(
                event_nid=-pos + 10**9,
                event_id=name,
                depth=depth,
                pos=pos,
                txn_device=None,
                txn_scope=None,
                txn_id=None,
            )
            events.insert(txn, [EventRow(*fetched)])

        await self.server.homeserver.db.write(write)

    async def test_what_is_fetched_while_paging_is_not_skipped(self) -> None:
        """Shows RD-8."""
        await self.start()
        sent = [await self.alice.send(self.room_id, str(n)) for n in range(10)]
        start = await self.now()
        page = await self.get(self.alice, "messages", dir="b", limit=3, **{"from": start})
        depth = PaginationToken.parse(page["end"]).depth
        # As deep as the last event that was shown, just below it, and far below.
        await self.insert(sent[0], depth, -1, "$same")
        await self.insert(sent[0], depth - 1, -2, "$below")
        await self.insert(sent[0], 1, -3, "$first")
        pages = [page, *(await self.all_pages(self.alice, "b", 3, **{"from": page["end"]}))]
        ids = self.ids_of(pages)
        self.assertEqual([name for name in ids if name in sent], sent[::-1])
        for name in ("$same", "$below", "$first"):
            self.assertEqual(ids.count(name), 1)
        self.assertEqual(ids[3], "$same")
        # A token of sync finds what was fetched since, too.
        pages = await self.all_pages(self.alice, "b", 3, **{"from": start})
        self.assertEqual(self.ids_of(pages), ids)

    async def test_what_arrives_while_paging_does_not_disturb(self) -> None:
        """Shows RD-8."""
        await self.start()
        sent = [await self.alice.send(self.room_id, str(n)) for n in range(9)]
        found: list[str] = []
        query: dict[str, str] = {}
        while len(found) < 9:
            page = await self.get(self.alice, "messages", dir="b", limit=3, **query)
            found += [event["event_id"] for event in page["chunk"]]
            query = {"from": page["end"]}
            await self.alice.send(self.room_id, "meanwhile")
        self.assertEqual(found, sent[::-1])
