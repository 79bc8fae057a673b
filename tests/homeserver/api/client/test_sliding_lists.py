"""Simplified sliding sync from outside: windows, order, filters, subscriptions."""

from __future__ import annotations

from typing import Any

from homeserver.sync.sliding import engine
from tests.homeserver.sync.sliding.scene import SlidingTestCase, texts, window

Json = dict[str, Any]


class WindowsTest(SlidingTestCase):
    async def test_the_newest_come_first(self) -> None:
        """Shows XC-1."""
        rooms = [await self.shared_room() for _ in range(4)]
        for number in (2, 0, 3, 1):
            await self.alice.send(rooms[number])
        answer = await self.slide(self.bob, lists={"top": window((0, 1))})
        self.assertEqual(answer["lists"], {"top": {"count": 4}})
        self.assertEqual(answer["rooms"].keys(), {rooms[1], rooms[3]})
        stamps = {room_id: room["bump_stamp"] for room_id, room in answer["rooms"].items()}
        self.assertGreater(stamps[rooms[1]], stamps[rooms[3]])

    async def test_what_bumps(self) -> None:
        """State and reactions do not bring a room to the top, messages of all kinds do."""
        rooms = [await self.shared_room() for _ in range(2)]
        await self.alice.send(rooms[0])
        await self.alice.set_state(rooms[1], "m.room.topic", {"topic": "new"})
        await self.alice.send(rooms[1], {"m.relates_to": {}}, "m.reaction")
        answer = await self.slide(self.bob, lists={"top": window((0, 0))})
        self.assertEqual(answer["rooms"].keys(), {rooms[0]})
        for kind in ("m.room.encrypted", "m.sticker", "m.poll.start", "m.call.invite"):
            await self.alice.send(rooms[1], {"body": kind}, kind)
            answer = await self.slide(self.bob, lists={"top": window((0, 0))})
            self.assertEqual(answer["rooms"].keys(), {rooms[1]}, kind)
            await self.alice.send(rooms[0])

    async def test_growing(self) -> None:
        rooms = [await self.shared_room() for _ in range(5)]
        answer = await self.slide(self.bob, lists={"all": window((0, 1))})
        self.assertEqual(answer["rooms"].keys(), set(rooms[3:]))
        answer = await self.slide(self.bob, answer["pos"], lists={"all": window((0, 3))})
        self.assertEqual(answer["rooms"].keys(), set(rooms[1:3]))
        answer = await self.slide(self.bob, answer["pos"], lists={"all": window((0, 9))})
        self.assertEqual(answer["rooms"].keys(), {rooms[0]})
        answer = await self.slide(self.bob, answer["pos"], lists={"all": window((0, 1))})
        self.assertEqual(answer["rooms"], {})

    async def test_rooms_move_in_and_out(self) -> None:
        """A room that comes back has what happened in it while it was away."""
        first, second = [await self.shared_room() for _ in range(2)]
        lists = {"top": window((0, 0))}
        await self.alice.send(first, "1")
        answer = await self.slide(self.bob, lists=lists)
        self.assertEqual(answer["rooms"].keys(), {first})
        # The second room pushes it out, with news that the client is not told of.
        await self.alice.send(first, "2")
        await self.alice.send(second, "3")
        answer = await self.slide(self.bob, answer["pos"], lists=lists)
        self.assertEqual(answer["rooms"].keys(), {second})
        await self.alice.set_state(first, "m.room.name", {"name": "Changed"})
        answer = await self.slide(self.bob, answer["pos"], lists=lists)
        self.assertEqual(answer["rooms"], {})
        await self.alice.send(first, "4")
        answer = await self.slide(self.bob, answer["pos"], lists=lists)
        room = answer["rooms"][first]
        self.assertEqual(texts(room), ["2", "4"])
        self.assertEqual((room["name"], room["num_live"]), ("Changed", 1))
        self.assertNotIn("initial", room)

    async def test_many_new_rooms(self) -> None:
        """More than fit into one answer come with the next one, without waiting."""
        self.patch(engine, "MAX_NEW_ROOMS", 2)
        rooms = [await self.shared_room() for _ in range(5)]
        subscription = {rooms[0]: {"timeline_limit": 1, "required_state": []}}
        body: Json = {"lists": {"all": window()}, "room_subscriptions": subscription}
        answer = await self.slide(self.bob, **body)
        self.assertEqual(answer["rooms"].keys(), {rooms[0], rooms[4]})
        self.assertEqual(answer["lists"], {"all": {"count": 5}})
        answer = await self.slide(self.bob, answer["pos"], timeout=20_000, **body)
        self.assertEqual(answer["rooms"].keys(), {rooms[3], rooms[2]})
        answer = await self.slide(self.bob, answer["pos"], timeout=20_000, **body)
        self.assertEqual(answer["rooms"].keys(), {rooms[1]})

    async def test_several_ranges(self) -> None:
        rooms = [await self.shared_room() for _ in range(5)]
        answer = await self.slide(self.bob, lists={"all": window((0, 0), (3, 4))})
        self.assertEqual(answer["rooms"].keys(), {rooms[4], rooms[1], rooms[0]})

    async def test_range_of_the_proposal(self) -> None:
        rooms = [await self.shared_room() for _ in range(3)]
        answer = await self.slide(self.bob, lists={"all": {"range": [0, 1], "timeline_limit": 1}})
        self.assertEqual(answer["rooms"].keys(), set(rooms[1:]))

    async def test_lists_and_subscriptions_together(self) -> None:
        """A room gets the most of what they ask for."""
        rooms = [await self.shared_room(topic="T") for _ in range(2)]
        for number in range(3):
            await self.alice.send(rooms[1], str(number))
        answer = await self.slide(
            self.bob,
            lists={"top": window((0, 0), limit=1), "two": window((0, 0), limit=2)},
            room_subscriptions={
                rooms[0]: {"timeline_limit": 1, "required_state": []},
                rooms[1]: {"timeline_limit": 1, "required_state": [["m.room.topic", ""]]},
            },
        )
        self.assertEqual(answer["rooms"].keys(), set(rooms))
        both = answer["rooms"][rooms[1]]
        self.assertEqual(texts(both), ["1", "2"])
        types = {event["type"] for event in both["required_state"]}
        self.assertEqual(types, {"m.room.topic", "m.room.create", "m.room.member"})
        self.assertEqual(sorted(both["lists"]), ["top", "two"])
        self.assertNotIn("lists", answer["rooms"][rooms[0]])


class FiltersTest(SlidingTestCase):
    async def filtered(self, **filters: Any) -> set[str]:
        lists = {"found": window(limit=1, filters=filters)}
        answer = await self.slide(self.bob, lists=lists)
        rooms = set(answer["rooms"])
        self.assertEqual(answer["lists"]["found"]["count"], len(rooms))
        return rooms

    async def test_direct(self) -> None:
        direct, other = await self.shared_room(), await self.shared_room()
        path = f"/user/{self.bob.user_id}/account_data/m.direct"
        await self.bob.ok("PUT", path, {self.alice.user_id: [direct, 5], "bad": "x"})
        self.assertEqual(await self.filtered(is_dm=True), {direct})
        self.assertEqual(await self.filtered(is_dm=False), {other})
        self.assertEqual(await self.filtered(), {direct, other})

    async def test_direct_changes(self) -> None:
        room_id = await self.shared_room()
        answer = await self.slide(self.bob)
        self.assertNotIn("is_dm", answer["rooms"][room_id])
        path = f"/user/{self.bob.user_id}/account_data/m.direct"
        await self.bob.ok("PUT", path, {self.alice.user_id: [room_id]})
        answer = await self.slide(self.bob, answer["pos"])
        self.assertIs(answer["rooms"][room_id]["is_dm"], True)
        await self.bob.ok("PUT", path, {})
        answer = await self.slide(self.bob, answer["pos"])
        self.assertIs(answer["rooms"][room_id]["is_dm"], False)
        answer = await self.slide(self.bob, answer["pos"])
        self.assertEqual(answer["rooms"], {})

    async def test_encrypted(self) -> None:
        secret, other = await self.shared_room(), await self.shared_room()
        algorithm = {"algorithm": "m.megolm.v1.aes-sha2"}
        await self.alice.set_state(secret, "m.room.encryption", algorithm)
        invited = await self.alice.create_room(
            initial_state=[{"type": "m.room.encryption", "state_key": "", "content": algorithm}]
        )
        await self.alice.invite(invited, self.bob.user_id)
        self.assertEqual(await self.filtered(is_encrypted=True), {secret, invited})
        self.assertEqual(await self.filtered(is_encrypted=False), {other})

    async def test_invites(self) -> None:
        joined, invited = await self.shared_room(), await self.alice.create_room()
        await self.alice.invite(invited, self.bob.user_id)
        self.assertEqual(await self.filtered(is_invite=True), {invited})
        self.assertEqual(await self.filtered(is_invited=False), {joined})

    async def test_types(self) -> None:
        plain = await self.shared_room()
        space = await self.shared_room(creation_content={"type": "m.space"})
        odd = await self.shared_room(creation_content={"type": "org.example"})
        invited = await self.alice.create_room(creation_content={"type": "m.space"})
        await self.alice.invite(invited, self.bob.user_id)
        self.assertEqual(await self.filtered(room_types=["m.space"]), {space, invited})
        self.assertEqual(await self.filtered(room_types=[None, "org.example"]), {plain, odd})
        self.assertEqual(await self.filtered(not_room_types=["m.space"]), {plain, odd})
        self.assertEqual(
            await self.filtered(room_types=["m.space", None], not_room_types=[None]),
            {space, invited},
        )

    async def test_tags(self) -> None:
        liked, low, plain = [await self.shared_room() for _ in range(3)]
        for room_id, tag in ((liked, "m.favourite"), (low, "m.favourite"), (low, "m.lowpriority")):
            await self.bob.ok("PUT", f"/user/{self.bob.user_id}/rooms/{room_id}/tags/{tag}", {})
        self.assertEqual(await self.filtered(tags=["m.favourite"]), {liked, low})
        self.assertEqual(
            await self.filtered(tags=["m.favourite"], not_tags=["m.lowpriority"]), {liked}
        )
        self.assertEqual(await self.filtered(not_tags=["m.favourite"]), {plain})

    async def test_names(self) -> None:
        tea = await self.shared_room(name="Tea House")
        await self.shared_room(name="Coffee")
        invited = await self.alice.create_room(name="TEAM")
        await self.alice.invite(invited, self.bob.user_id)
        self.assertEqual(await self.filtered(room_name_like="tea"), {tea, invited})

    async def test_spaces(self) -> None:
        inside, gone, _ = [await self.shared_room() for _ in range(3)]
        space = await self.shared_room(creation_content={"type": "m.space"})
        hidden = await self.alice.create_room(creation_content={"type": "m.space"})
        for parent, child in ((space, inside), (space, gone), (hidden, gone)):
            content = {"via": ["hearth.test"]}
            await self.alice.set_state(parent, "m.space.child", content, child)
        await self.alice.set_state(space, "m.space.child", {}, gone)
        self.assertEqual(await self.filtered(spaces=[space, hidden]), {inside})
        self.assertEqual(await self.filtered(spaces=[]), set())


class ExtensionsTest(SlidingTestCase):
    """What comes besides rooms."""

    async def extended(
        self, pos: str | None = None, lists: Json | None = None, **extensions: Any
    ) -> Any:
        on = {name: {"enabled": True, **more} for name, more in extensions.items()}
        return await self.slide(self.bob, pos, lists=lists or {"all": window()}, extensions=on)

    async def message(self, text: str) -> None:
        body = {"messages": {self.bob.user_id: {self.bob.device_id: {"text": text}}}}
        await self.alice.ok("PUT", f"/sendToDevice/m.test/{text}", body)

    async def test_nothing_unasked(self) -> None:
        await self.message("one")
        answer = await self.slide(self.bob, extensions={"to_device": {"enabled": False}})
        self.assertEqual(answer["extensions"], {})

    async def test_to_device(self) -> None:
        """Messages wait until the client says by `since` that it has them. Shows XC-1."""
        for text in ("one", "two", "three"):
            await self.message(text)
        answer = await self.extended(to_device={"limit": 2})
        part = answer["extensions"]["to_device"]
        self.assertEqual([e["content"]["text"] for e in part["events"]], ["one", "two"])
        again = await self.extended(answer["pos"], to_device={"limit": 2})
        self.assertEqual(again["extensions"]["to_device"], part)
        answer = await self.extended(again["pos"], to_device={"since": part["next_batch"]})
        part = answer["extensions"]["to_device"]
        self.assertEqual([e["content"]["text"] for e in part["events"]], ["three"])
        db = self.server.homeserver.db
        count = await db.read(lambda txn: txn.value("SELECT COUNT(*) FROM to_device_messages"))
        self.assertEqual(count, 1)
        answer = await self.extended(answer["pos"], to_device={"since": part["next_batch"]})
        self.assertEqual(answer["extensions"]["to_device"]["events"], [])
        count = await db.read(lambda txn: txn.value("SELECT COUNT(*) FROM to_device_messages"))
        self.assertEqual(count, 0)

    async def test_to_device_wakes(self) -> None:
        body: Json = {"lists": {}, "extensions": {"to_device": {"enabled": True}}}
        answer = await self.slide(self.bob, **body)
        waiting = self.wait(self.bob, answer["pos"], **body)
        self.assertFalse(waiting.called)
        await self.message("wake")
        self.assertEqual(len((await waiting)["extensions"]["to_device"]["events"]), 1)

    async def test_e2ee(self) -> None:
        keys = {f"signed_curve25519:A{n}": {"key": f"k{n}"} for n in range(3)}
        await self.bob.ok("POST", "/keys/upload", {"one_time_keys": keys})
        await self.shared_room()
        answer = await self.extended(e2ee={})
        part = answer["extensions"]["e2ee"]
        self.assertEqual(part["device_one_time_keys_count"], {"signed_curve25519": 3})
        self.assertEqual(part["device_unused_fallback_key_types"], [])
        self.assertNotIn("device_lists", part)
        carol = await self.server.register("carol")
        await carol.join((await self.slide(self.bob))["rooms"].popitem()[0])
        answer = await self.extended(answer["pos"], e2ee={})
        lists = answer["extensions"]["e2ee"]["device_lists"]
        self.assertEqual(lists, {"changed": [carol.user_id], "left": []})
        answer = await self.extended(answer["pos"], e2ee={})
        self.assertNotIn("device_lists", answer["extensions"]["e2ee"])

    async def test_account_data(self) -> None:
        rooms = [await self.shared_room() for _ in range(2)]
        base = f"/user/{self.bob.user_id}"
        await self.bob.ok("PUT", f"{base}/account_data/m.test", {"n": 1})
        await self.bob.ok("PUT", f"{base}/rooms/{rooms[0]}/account_data/m.test", {"n": 2})
        answer = await self.extended(account_data={})
        part = answer["extensions"]["account_data"]
        types = {event["type"] for event in part["global"]}
        self.assertEqual(types, {"m.test", "m.push_rules"})
        self.assertEqual(part["rooms"], {rooms[0]: [{"type": "m.test", "content": {"n": 2}}]})
        quiet = await self.extended(answer["pos"], account_data={})
        self.assertEqual(quiet["extensions"], {})
        await self.bob.ok("PUT", f"{base}/rooms/{rooms[1]}/account_data/m.test", {"n": 3})
        answer = await self.extended(quiet["pos"], account_data={})
        part = answer["extensions"]["account_data"]
        self.assertEqual(part, {"rooms": {rooms[1]: [{"type": "m.test", "content": {"n": 3}}]}})

    async def test_account_data_of_rooms_out_of_the_window(self) -> None:
        away, here = [await self.shared_room() for _ in range(2)]
        lists = {"top": window((0, 0))}
        await self.alice.send(away)
        answer = await self.extended(lists=lists, account_data={})
        await self.alice.send(here)
        answer = await self.extended(answer["pos"], lists=lists, account_data={})
        base = f"/user/{self.bob.user_id}/rooms"
        await self.bob.ok("PUT", f"{base}/{away}/account_data/m.test", {"n": 1})
        answer = await self.extended(answer["pos"], lists=lists, account_data={})
        self.assertEqual(answer["extensions"], {})
        await self.alice.send(away)
        answer = await self.extended(answer["pos"], lists=lists, account_data={})
        rooms = answer["extensions"]["account_data"]["rooms"]
        self.assertEqual(rooms, {away: [{"type": "m.test", "content": {"n": 1}}]})

    async def test_receipts(self) -> None:
        room_id = await self.shared_room()
        carol = await self.server.register("carol")
        await carol.join(room_id)
        old = await self.alice.send(room_id, "old")
        await carol.ok("POST", f"/rooms/{room_id}/receipt/m.read/{old}", {})
        own = await self.alice.send(room_id, "own")
        await self.bob.ok("POST", f"/rooms/{room_id}/receipt/m.read.private/{own}", {})
        new = await self.alice.send(room_id, "new")
        await self.alice.ok("POST", f"/rooms/{room_id}/receipt/m.read/{new}", {})
        answer = await self.extended(lists={"all": window(limit=1)}, receipts={})
        part = answer["extensions"]["receipts"]["rooms"][room_id]
        # Not Carol's, at an event that the client does not have.
        self.assertEqual(part["content"].keys(), {own, new})
        self.assertEqual(part["type"], "m.receipt")
        await carol.ok("POST", f"/rooms/{room_id}/receipt/m.read/{new}", {})
        answer = await self.extended(answer["pos"], receipts={})
        content = answer["extensions"]["receipts"]["rooms"][room_id]["content"]
        self.assertIn(carol.user_id, content[new]["m.read"])
        quiet = await self.extended(answer["pos"], receipts={})
        self.assertEqual(quiet["extensions"], {})

    async def test_private_receipts_of_others(self) -> None:
        room_id = await self.shared_room()
        event_id = await self.bob.send(room_id)
        answer = await self.extended(receipts={})
        await self.alice.ok("POST", f"/rooms/{room_id}/receipt/m.read.private/{event_id}", {})
        for pos in (answer["pos"], None):
            answer = await self.extended(pos, receipts={})
            self.assertEqual(answer["extensions"], {})

    async def test_extension_that_is_asked_for_later(self) -> None:
        room_id = await self.shared_room()
        event_id = await self.bob.send(room_id)
        await self.alice.ok("POST", f"/rooms/{room_id}/receipt/m.read/{event_id}", {})
        answer = await self.extended()
        answer = await self.extended(answer["pos"], receipts={}, account_data={})
        receipts = answer["extensions"]["receipts"]["rooms"][room_id]["content"]
        self.assertIn(event_id, receipts)
        self.assertIn("global", answer["extensions"]["account_data"])

    async def test_typing(self) -> None:
        room_id = await self.shared_room()
        answer = await self.extended(typing={})
        path = f"/rooms/{room_id}/typing/{self.alice.user_id}"
        await self.alice.ok("PUT", path, {"typing": True, "timeout": 30_000})
        started = await self.extended(answer["pos"], typing={})
        expected = {"type": "m.typing", "content": {"user_ids": [self.alice.user_id]}}
        self.assertEqual(started["extensions"]["typing"]["rooms"], {room_id: expected})
        fresh = await self.extended(typing={})
        self.assertEqual(fresh["extensions"]["typing"]["rooms"], {room_id: expected})
        quiet = await self.extended(fresh["pos"], typing={})
        self.assertEqual(quiet["extensions"], {})
        await self.alice.ok("PUT", path, {"typing": False})
        stopped = await self.extended(quiet["pos"], typing={})
        rooms = stopped["extensions"]["typing"]["rooms"]
        self.assertEqual(rooms[room_id]["content"], {"user_ids": []})

    async def test_thread_subscriptions(self) -> None:
        name = "io.element.msc4308.thread_subscriptions"
        room_id = await self.shared_room()
        threads = [await self.alice.send(room_id, f"thread {number}") for number in range(3)]
        base = f"/_matrix/client/unstable/io.element.msc4306/rooms/{room_id}/thread"
        for thread in threads:
            await self.bob.ok("PUT", f"{base}/{thread}/subscription", {})
        wanted: Json = {name: {"limit": 2}}
        answer = await self.extended(**wanted)
        part = answer["extensions"][name]
        self.assertEqual(part["subscribed"][room_id].keys(), set(threads[1:]))
        older = await self.bob.ok(
            "GET",
            "/_matrix/client/unstable/io.element.msc4308/thread_subscriptions",
            query={"from": part["prev_batch"]},
        )
        self.assertEqual(older["subscribed"][room_id].keys(), {threads[0]})
        quiet = await self.extended(answer["pos"], **{name: {}})
        self.assertEqual(quiet["extensions"], {})
        await self.bob.ok("DELETE", f"{base}/{threads[1]}/subscription")
        answer = await self.extended(quiet["pos"], **{name: {}})
        part = answer["extensions"][name]
        self.assertEqual(part.keys(), {"unsubscribed"})
        self.assertEqual(part["unsubscribed"][room_id].keys(), {threads[1]})
        newer = await self.bob.ok(
            "GET",
            "/_matrix/client/unstable/io.element.msc4308/thread_subscriptions",
            query={"to": quiet["pos"]},
        )
        self.assertNotIn("subscribed", newer)
        self.assertEqual(newer["unsubscribed"], part["unsubscribed"])

    async def test_only_of_some_rooms(self) -> None:
        first, second = [await self.shared_room() for _ in range(2)]
        for room_id in (first, second):
            path = f"/rooms/{room_id}/typing/{self.alice.user_id}"
            await self.alice.ok("PUT", path, {"typing": True, "timeout": 30_000})
        body: Json = {
            "lists": {"top": window((0, 0))},
            "room_subscriptions": {first: {"timeline_limit": 1, "required_state": []}},
        }
        for chosen, expected in (
            ({}, {first, second}),
            ({"lists": ["top"], "rooms": []}, {second}),
            ({"lists": [], "rooms": ["*"]}, {first}),
            ({"lists": ["other"], "rooms": [second]}, set()),
        ):
            extensions = {"typing": {"enabled": True, **chosen}}
            answer = await self.slide(self.bob, extensions=extensions, **body)
            rooms = answer["extensions"].get("typing", {}).get("rooms", {})
            self.assertEqual(set(rooms), expected, chosen)
