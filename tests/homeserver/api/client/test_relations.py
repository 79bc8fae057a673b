"""Aggregations and relations over the API."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from tests.support.room_case import TEXT, RoomTestCase, q
from tests.support.server import User


class RelationsCase(RoomTestCase):
    async def relate(
        self,
        user: User,
        rel_type: str,
        event_id: str,
        event_type: str = "m.room.message",
        **more: Any,
    ) -> str:
        """Send an event that relates to another; its ID."""
        content = {**TEXT, "m.relates_to": {"rel_type": rel_type, "event_id": event_id}, **more}
        return await user.send(self.room_id, content, event_type)

    async def edit(self, user: User, event_id: str, body: str = "new", **more: Any) -> str:
        content = {**TEXT, "body": body}
        return await self.relate(user, "m.replace", event_id, **{"m.new_content": content, **more})

    async def bundled(self, user: User, event_id: str) -> Any:
        """The aggregations of an event, the same on every way."""
        shown = await self.event(user, event_id)
        found = shown["unsigned"].get("m.relations", {})
        page = {e["event_id"]: e for e in await self.messages(user)}
        around = await self.get(user, f"context/{q(event_id)}")
        for other in (page[event_id], around["event"]):
            self.assertEqual(_ageless(other["unsigned"].get("m.relations", {})), _ageless(found))
        return found

    async def related(self, user: User, event_id: str, path: str = "", **query: Any) -> Any:
        base = f"/_matrix/client/v1/rooms/{q(self.room_id)}/relations/{q(event_id)}"
        return await user.ok("GET", base + path, query=query)

    async def related_ids(self, event_id: str, path: str = "", **query: Any) -> list[str]:
        chunk = (await self.related(self.alice, event_id, path, **query))["chunk"]
        return [event["event_id"] for event in chunk]


def _ageless(value: Any) -> Any:
    """The value without `age`, which goes on while a test runs."""
    if isinstance(value, dict):
        return {key: _ageless(each) for key, each in value.items() if key != "age"}
    return [_ageless(each) for each in value] if isinstance(value, list) else value


class AggregationTest(RelationsCase):
    async def test_the_newest_edit_is_bundled_whole(self) -> None:
        """Shows REL-2, REL-3."""
        await self.start()
        event_id = await self.alice.send(self.room_id, "old")
        self.assertEqual(await self.bundled(self.alice, event_id), {})
        await self.edit(self.alice, event_id, "one")
        edit = await self.edit(self.alice, event_id, "two")
        found = (await self.bundled(self.alice, event_id))["m.replace"]
        self.assertEqual(found["event_id"], edit)
        self.assertEqual(found["content"]["m.new_content"]["body"], "two")
        self.assertEqual(found["sender"], self.alice.user_id)
        self.assertEqual(found["room_id"], self.room_id)
        # The original is left as it was.
        self.assertEqual((await self.event(self.alice, event_id))["content"]["body"], "old")

    async def test_invalid_edits(self) -> None:
        """Shows REL-3."""
        await self.start()
        await self.bob.join(self.room_id)
        event_id = await self.alice.send(self.room_id)
        await self.edit(self.bob, event_id)
        await self.relate(self.alice, "m.replace", event_id)
        await self.relate(self.alice, "m.replace", event_id, "other", **{"m.new_content": {}})
        await self.edit(self.alice, event_id, **{"m.new_content": "text"})
        self.assertEqual(await self.bundled(self.alice, event_id), {})
        # An edit of an edit.
        edit = await self.edit(self.alice, event_id)
        await self.edit(self.alice, edit)
        self.assertEqual(await self.bundled(self.alice, edit), {})
        self.assertEqual((await self.bundled(self.alice, event_id))["m.replace"]["event_id"], edit)
        # Of state, and of an event of another room.
        topic = await self.alice.set_state(self.room_id, "m.room.topic", {"topic": "x"})
        await self.relate(self.alice, "m.replace", topic, "m.room.topic", **{"m.new_content": {}})
        self.assertEqual(await self.bundled(self.alice, topic), {})
        self.room_id, old_room = await self.alice.create_room(), self.room_id
        await self.edit(self.alice, event_id, "elsewhere")
        self.room_id = old_room
        self.assertEqual((await self.bundled(self.alice, event_id))["m.replace"]["event_id"], edit)

    async def test_encrypted_edits_hide_their_content(self) -> None:
        """Shows REL-3."""
        await self.start()
        event_id = await self.alice.send(self.room_id, {"ciphertext": "x"}, "m.room.encrypted")
        edit = await self.relate(self.alice, "m.replace", event_id, "m.room.encrypted")
        found = (await self.bundled(self.alice, event_id))["m.replace"]
        self.assertEqual(found["event_id"], edit)

    async def test_redactions_of_edits_and_of_edited_events(self) -> None:
        """Shows REL-3, REL-6."""
        await self.start()
        event_id = await self.alice.send(self.room_id)
        first = await self.edit(self.alice, event_id, "one")
        second = await self.edit(self.alice, event_id, "two")
        await self.put_ok(self.alice, f"redact/{q(second)}/t1", {})
        found = await self.bundled(self.alice, event_id)
        self.assertEqual(found["m.replace"]["event_id"], first)
        await self.relate(self.alice, "m.reference", event_id)
        await self.put_ok(self.alice, f"redact/{q(event_id)}/t2", {})
        found = await self.bundled(self.alice, event_id)
        self.assertEqual(found.keys(), {"m.reference"})
        self.assertIn(first, await self.related_ids(event_id))

    async def test_references_and_reactions(self) -> None:
        """Shows REL-4."""
        await self.start()
        event_id = await self.alice.send(self.room_id)
        references = [await self.relate(self.alice, "m.reference", event_id) for _ in range(3)]
        relates = {"rel_type": "m.annotation", "event_id": event_id, "key": "+"}
        await self.alice.send(self.room_id, {"m.relates_to": relates}, "m.reaction")
        await self.relate(self.alice, "other", event_id)
        self.assertEqual(
            await self.bundled(self.alice, event_id),
            {"m.reference": {"chunk": [{"event_id": name} for name in references]}},
        )
        await self.put_ok(self.alice, f"redact/{q(references[1])}/t", {})
        chunk = (await self.bundled(self.alice, event_id))["m.reference"]["chunk"]
        self.assertEqual([each["event_id"] for each in chunk], [references[0], references[2]])

    async def test_state_has_no_aggregations(self) -> None:
        """Shows REL-2."""
        await self.start()
        topic = await self.alice.set_state(self.room_id, "m.room.topic", {"topic": "x"})
        await self.relate(self.alice, "m.reference", topic)
        self.assertEqual(await self.bundled(self.alice, topic), {})

    async def test_threads(self) -> None:
        """Shows REL-8."""
        await self.start()
        carol, dave = [await self.server.register(name) for name in ("carol", "dave")]
        for user in (self.bob, carol, dave):
            await user.join(self.room_id)
        root = await self.alice.send(self.room_id, "root")
        await self.relate(self.bob, "m.thread", root)
        latest = await self.relate(carol, "m.thread", root)
        edit = await self.edit(carol, latest)
        await self.relate(dave, "m.annotation", latest, "m.reaction")
        for user, takes_part in (
            (self.alice, True),
            (self.bob, True),
            (carol, True),
            (dave, False),
        ):
            thread = (await self.bundled(user, root))["m.thread"]
            self.assertEqual(thread["count"], 2)
            self.assertEqual(thread["current_user_participated"], takes_part)
            event = thread["latest_event"]
            self.assertEqual(event["event_id"], latest)
            self.assertEqual(event["unsigned"]["m.relations"]["m.replace"]["event_id"], edit)
        await self.put_ok(carol, f"redact/{q(latest)}/t", {})
        thread = (await self.bundled(carol, root))["m.thread"]
        self.assertEqual(thread["count"], 1)
        self.assertFalse(thread["current_user_participated"])

    async def test_threads_of_readers_who_left(self) -> None:
        """Shows REL-8, HV-5."""
        await self.start()
        await self.bob.join(self.room_id)
        root = await self.alice.send(self.room_id, "root")
        latest = await self.relate(self.alice, "m.thread", root)
        await self.bob.leave(self.room_id)
        await self.relate(self.alice, "m.thread", root)
        thread = (await self.bundled(self.bob, root))["m.thread"]
        self.assertEqual((thread["count"], thread["latest_event"]["event_id"]), (1, latest))

    async def test_no_threads_in_threads(self) -> None:
        """Shows REL-9."""
        await self.start()
        root = await self.alice.send(self.room_id)
        child = await self.relate(self.alice, "m.thread", root)
        relates = {"rel_type": "m.annotation", "event_id": root, "key": "+"}
        reaction = await self.alice.send(self.room_id, {"m.relates_to": relates}, "m.reaction")
        for parent in (child, reaction):
            content = {**TEXT, "m.relates_to": {"rel_type": "m.thread", "event_id": parent}}
            answer = await self.put(self.alice, f"send/m.room.message/{parent[1:9]}", content)
            self.assert_error(answer, 400, "M_UNKNOWN")
        # A reply that is no relation is a fine root; an unknown event may become one.
        reply = await self.alice.send(
            self.room_id, {**TEXT, "m.relates_to": {"m.in_reply_to": {"event_id": root}}}
        )
        await self.relate(self.alice, "m.thread", reply)
        await self.relate(self.alice, "m.thread", "$unknown")

    async def test_a_second_reaction_alike(self) -> None:
        """Shows REL-5."""
        await self.start()
        await self.bob.join(self.room_id)
        event_id = await self.alice.send(self.room_id)

        def react(key: str, to: str = event_id) -> dict[str, Any]:
            return {"m.relates_to": {"rel_type": "m.annotation", "event_id": to, "key": key}}

        first = await self.put_ok(self.alice, "send/m.reaction/1", react("+"))
        answer = await self.put(self.alice, "send/m.reaction/2", react("+"))
        self.assert_error(answer, 400, "M_DUPLICATE_ANNOTATION")
        await self.put_ok(self.alice, "send/m.reaction/3", react("-"))
        await self.put_ok(self.bob, "send/m.reaction/4", react("+"))
        await self.put_ok(self.alice, "send/m.reaction/5", react("+", first))
        # Repeating the request is no second reaction; after a redaction there is none left.
        self.assertEqual(await self.put_ok(self.alice, "send/m.reaction/1", react("+")), first)
        await self.put_ok(self.alice, f"redact/{q(first)}/6", {})
        await self.put_ok(self.alice, "send/m.reaction/7", react("+"))

    async def test_simultaneous_reactions_alike(self) -> None:
        """Shows REL-5."""
        await self.start()
        event_id = await self.alice.send(self.room_id)
        content = {"m.relates_to": {"rel_type": "m.annotation", "event_id": event_id, "key": "+"}}
        answers = await gatherResults(
            Deferred.fromCoroutine(self.put(self.alice, f"send/m.reaction/{n}", content))
            for n in range(6)
        )
        self.assertEqual(sorted(answer.status for answer in answers), [200] + [400] * 5)

    async def test_ignored_users_do_not_count(self) -> None:
        """Shows REL-7."""
        await self.start()
        await self.bob.join(self.room_id)
        root = await self.alice.send(self.room_id)
        mine = await self.relate(self.alice, "m.thread", root)
        await self.relate(self.bob, "m.thread", root)
        await self.relate(self.bob, "m.reference", root)
        await self.alice.ok(
            "PUT",
            f"/user/{q(self.alice.user_id)}/account_data/m.ignored_user_list",
            {"ignored_users": {self.bob.user_id: {}}},
        )
        found = await self.bundled(self.alice, root)
        self.assertEqual(found.keys(), {"m.thread"})
        self.assertEqual(found["m.thread"]["count"], 1)
        self.assertEqual(found["m.thread"]["latest_event"]["event_id"], mine)
        self.assertEqual(await self.related_ids(root), [mine])

    async def test_malformed_relations_are_ignored(self) -> None:
        await self.start()
        event_id = await self.alice.send(self.room_id)
        malformed: tuple[Any, ...] = (
            5,
            [],
            {},
            {"rel_type": 5, "event_id": event_id},
            {"rel_type": "m.reference", "event_id": {}},
            {"rel_type": "m.reference", "event_id": "x" * 300},
            {"rel_type": "m.\x00", "event_id": event_id},
            {"rel_type": "m.annotation", "event_id": event_id, "key": 5},
            {"rel_type": "m.annotation", "event_id": event_id},
        )
        for relates in malformed:
            await self.alice.send(self.room_id, {"m.relates_to": relates}, "custom")
        self.assertEqual(await self.bundled(self.alice, event_id), {})


class ListTest(RelationsCase):
    async def test_children_of_a_kind(self) -> None:
        """Shows REL-1."""
        await self.start()
        root = await self.alice.send(self.room_id)
        thread = await self.relate(self.alice, "m.thread", root)
        dummy = await self.relate(self.alice, "m.thread", root, "m.dummy")
        edit = await self.edit(self.alice, root)
        self.assertEqual(await self.related_ids(root), [edit, dummy, thread])
        self.assertEqual(await self.related_ids(root, dir="f"), [thread, dummy, edit])
        self.assertEqual(await self.related_ids(root, "/m.thread"), [dummy, thread])
        self.assertEqual(await self.related_ids(root, "/m.thread/m.dummy"), [dummy])
        self.assertEqual(await self.related_ids(root, "/m.replace/m.dummy"), [])
        self.assertEqual(await self.related_ids(thread), [])
        old = f"/_matrix/client/unstable/rooms/{q(self.room_id)}/relations/{q(root)}/m.replace"
        self.assertEqual((await self.alice.ok("GET", old))["chunk"][0]["event_id"], edit)

    async def test_pages(self) -> None:
        """Shows REL-1."""
        await self.start()
        root = await self.alice.send(self.room_id)
        sent = [await self.relate(self.alice, "m.thread", root) for _ in range(5)]
        token = await self.now()
        sent += [await self.relate(self.alice, "m.thread", root) for _ in range(5)]
        for direction, expected in (("b", sent[::-1]), ("f", sent)):
            found: list[str] = []
            query: dict[str, Any] = {"dir": direction, "limit": 3}
            sizes = []
            while True:
                page = await self.related(self.alice, root, **query)
                self.assertEqual(page.get("prev_batch"), query.get("from"))
                found += [event["event_id"] for event in page["chunk"]]
                sizes.append(len(page["chunk"]))
                if "next_batch" not in page:
                    break
                query["from"] = page["next_batch"]
            self.assertEqual(found, expected)
            self.assertEqual(sizes, [3, 3, 3, 1])
        start = {"from": token}
        self.assertEqual(await self.related_ids(root, dir="f", limit=3, **start), sent[5:8])
        self.assertEqual(await self.related_ids(root, dir="b", limit=3, **start), sent[4:1:-1])
        self.assertEqual(await self.related_ids(root, dir="b", to=token), sent[:4:-1])

    async def test_through_several_relations(self) -> None:
        """Shows REL-1."""
        await self.start()
        root = await self.alice.send(self.room_id)
        first = await self.relate(self.alice, "m.thread", root)
        second = await self.relate(self.alice, "m.reference", first)
        third = await self.relate(self.alice, "m.reference", second)
        fourth = await self.relate(self.alice, "m.reference", third)
        page = await self.related(self.alice, root)
        self.assertNotIn("recursion_depth", page)
        for name in ("recurse", "org.matrix.msc3981.recurse"):
            page = await self.related(self.alice, root, **{name: "true"})
            ids = [event["event_id"] for event in page["chunk"]]
            self.assertEqual(ids, [third, second, first])
            self.assertGreaterEqual(page["recursion_depth"], 3)
        self.assertNotIn(fourth, ids)
        page = await self.related(self.alice, root, recurse="false")
        self.assertEqual([event["event_id"] for event in page["chunk"]], [first])
        self.assertIn("recursion_depth", page)
        # The filter holds on the way, too.
        self.assertEqual(await self.related_ids(root, "/m.reference", recurse="true"), [])
        self.assertEqual(
            await self.related_ids(first, "/m.reference", recurse="true", limit=2),
            [fourth, third],
        )

    async def test_circles_end(self) -> None:
        """Shows REL-1."""
        await self.start()
        first = await self.alice.send(self.room_id)
        second = await self.relate(self.alice, "m.reference", first)

        def close(txn: Any) -> None:
            txn.execute(
                "UPDATE events SET relates_to = ?, rel_type = 'm.reference' WHERE event_id = ?",
                (second, first),
            )

        await self.server.homeserver.db.write(close)
        self.assertEqual(await self.related_ids(first, recurse="true"), [second])

    async def test_children_have_aggregations(self) -> None:
        """Shows REL-2."""
        await self.start()
        root = await self.alice.send(self.room_id)
        child = await self.relate(self.alice, "m.thread", root)
        edit = await self.edit(self.alice, child)
        (event,) = (await self.related(self.alice, root))["chunk"]
        self.assertEqual(event["unsigned"]["m.relations"]["m.replace"]["event_id"], edit)

    async def test_redacted_children_are_gone(self) -> None:
        """Shows REL-6."""
        await self.start()
        root = await self.alice.send(self.room_id)
        child = await self.relate(self.alice, "m.thread", root)
        other = await self.relate(self.alice, "m.thread", root)
        await self.put_ok(self.alice, f"redact/{q(child)}/t", {})
        self.assertEqual(await self.related_ids(root), [other])
        await self.put_ok(self.alice, f"redact/{q(root)}/t", {})
        self.assertEqual(await self.related_ids(root), [other])

    async def test_bad_parameters(self) -> None:
        await self.start()
        root = await self.alice.send(self.room_id)
        base = f"/_matrix/client/v1/rooms/{q(self.room_id)}/relations/{q(root)}"
        for query in ("limit=-1", "limit=0", "limit=x", "dir=x", "from=x", "to=x", "recurse=5"):
            answer = await self.alice.call("GET", f"{base}?{query}")
            self.assert_error(answer, 400, "M_INVALID_PARAM")
