"""Rooms as other servers describe them: what strangers may write into that."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from federation.client.errors import BadAnswer, Unreachable
from federation.client.queries import QueryCalls
from homeserver.core.errors import MatrixError
from homeserver.rooms.remote_rooms import RemoteRooms, child_event, description_of

ROOM = "!room:b.example"
GOOD: dict[str, Any] = {
    "room_id": ROOM,
    "num_joined_members": 3,
    "world_readable": True,
    "guest_can_join": False,
    "join_rule": "knock",
    "name": "Room",
}
CHILD: dict[str, Any] = {
    "type": "m.space.child",
    "state_key": "!child:b.example",
    "sender": "@bob:b.example",
    "origin_server_ts": 1,
    "content": {"via": ["b.example"]},
}


class FakeClient:
    """Answers with `answer`, or raises it; `asked` are the servers that were asked."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.asked: list[str] = []

    async def get_json(self, destination: str, path: str, **options: Any) -> Any:
        self.asked.append(destination)
        answer = self.answers.get(destination, {"room": GOOD, "children": []})
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def post_json(self, destination: str, path: str, body: Any, **options: Any) -> Any:
        return await self.get_json(destination, path)


class RemoteRoomsTest(TestCase):
    def setUp(self) -> None:
        self.client = FakeClient()
        self.clock = Clock()
        self.remote = RemoteRooms(QueryCalls(cast(Any, self.client)), self.clock, "hearth.test")

    async def asked(self, *via: str, room_id: str = ROOM) -> Any:
        self.client.asked.clear()
        return await self.remote.space(room_id, via)

    async def test_an_answer_is_remembered(self) -> None:
        """Shows MISC-1."""
        self.assertEqual((await self.asked("b.example")).room.name, "Room")
        self.assertEqual((await self.asked("b.example")).room.name, "Room")
        self.assertEqual(self.client.asked, [])
        self.clock.advance(1000)
        await self.asked("b.example")
        self.assertEqual(self.client.asked, ["b.example"])

    async def test_other_servers_are_asked_next(self) -> None:
        """Shows MISC-1."""
        self.client.answers = {
            "a.example": Unreachable("a.example", "down"),
            "b.example": BadAnswer("b.example", "rubbish"),
        }
        via = ("hearth.test", "a.example", "b.example", "c.example", "d.example")
        self.assertIsNotNone(await self.asked(*via))
        self.assertEqual(self.client.asked, ["a.example", "b.example", "c.example"])

    async def test_servers_that_failed_are_left_alone(self) -> None:
        self.client.answers = {"a.example": Unreachable("a.example", "down")}
        self.assertIsNone(await self.asked("a.example"))
        self.assertIsNone(await self.asked("a.example", room_id="!other:b.example"))
        self.assertEqual(self.client.asked, [])
        self.clock.advance(100)
        await self.asked("a.example")
        self.assertEqual(self.client.asked, ["a.example"])

    async def test_hostile_answers(self) -> None:
        answers: list[Any] = [
            {},
            {"room": []},
            {"room": {**GOOD, "room_id": "!other:b.example"}},
            {"room": {"room_id": ROOM}},
        ]
        for number, answer in enumerate(answers):
            name = f"s{number}.example"
            self.client.answers = {name: answer}
            self.assertIsNone(await self.asked(name), answer)

    async def test_hostile_parts_are_left_out(self) -> None:
        room = {**GOOD, "children_state": [CHILD, 7, None, {**CHILD, "content": {}}]}
        self.client.answers["b.example"] = {
            "room": room,
            "children": [{**GOOD, "room_id": "!child:b.example"}, [], {"room_id": "!x"}],
            "inaccessible_children": ["!y:b.example", {}, 3],
        }
        found = await self.asked("b.example")
        self.assertEqual(list(found.children_state), [CHILD])
        self.assertEqual(list(found.children), ["!child:b.example"])
        self.assertEqual(found.inaccessible, {"!y:b.example"})

    async def test_lists_of_rooms(self) -> None:
        self.client.answers["b.example"] = {
            "chunk": [GOOD, 5, {"name": "no ID"}],
            "next_batch": 7,
            "total_room_count_estimate": "many",
        }
        found = await self.remote.listed("b.example", {})
        self.assertEqual([room.room_id for room in found.rooms], [ROOM])
        self.assertEqual((found.next_batch, found.total), (None, 1))
        wrong: list[Any] = [{}, {"chunk": {}}, Unreachable("b.example", "down")]
        for bad in wrong:
            self.client.answers["b.example"] = bad
            with self.assertRaises(MatrixError) as caught:
                await self.remote.listed("b.example", {})
            self.assertEqual(
                (caught.exception.status, caught.exception.errcode), (502, "M_UNKNOWN")
            )


class DescriptionTest(TestCase):
    def test_rooms_that_say_too_little(self) -> None:
        for missing in ("room_id", "num_joined_members"):
            value = {key: GOOD[key] for key in GOOD if key != missing}
            self.assertIsNone(description_of(value))
        for wrong in (
            {"room_id": "room"},
            {"num_joined_members": True},
            {"num_joined_members": -1},
        ):
            self.assertIsNone(description_of({**GOOD, **wrong}))

    def test_values_of_wrong_types_are_left_out(self) -> None:
        names = ("name", "topic", "canonical_alias", "avatar_url", "room_type", "encryption")
        wrong: list[Any] = [7, [], {}, None, True, "", "nul\0"]
        for bad in wrong:
            room = description_of({**GOOD, **dict.fromkeys(names, bad), "allowed_room_ids": bad})
            assert room is not None
            self.assertEqual({getattr(room, name) for name in names}, {None})
            self.assertEqual(room.allowed_room_ids, ())

    def test_child_events(self) -> None:
        self.assertEqual(child_event({**CHILD, "unsigned": {}, "room_id": ROOM}), CHILD)
        wrong: list[Any] = [
            {"type": "m.room.name"},
            {"state_key": "child"},
            {"state_key": 5},
            {"sender": "bob"},
            {"origin_server_ts": "1"},
            {"origin_server_ts": True},
            {"content": []},
            {"content": {"via": "b.example"}},
            {"content": {"via": []}},
            {"content": {"via": ["no server", 5]}},
        ]
        for change in wrong:
            self.assertIsNone(child_event({**CHILD, **change}), change)
