"""A peer that answers with rubbish, with lies, without end, or not at all."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from homeserver.core.event import Event
from tests.conformance.hostile_peer import MIB, HostilePeerCase
from tests.support.federation import eventually
from tests.support.peer import PeerRoom, Received, Reply
from tests.support.peer_http import Handler

NOWHERE = f"${'A' * 43}"
RUBBISH: tuple[Any, ...] = (
    b"",
    b"{",
    b"\xff\xfe\x00",
    b"[]",
    b"null",
    b'"text"',
    b"<html></html>",
    b'{"a":' * 3000 + b"1" + b"}" * 3000,
    {},
    {"pdus": 5, "events": 5, "pdu_ids": 5, "auth_chain_ids": 5, "auth_chain": 5, "state": 5},
    {"pdus": [None], "events": [None], "pdu_ids": [None], "auth_chain_ids": [5]},
    {"pdus": [{}], "events": [{}], "pdu_ids": [{}], "auth_chain_ids": [[]], "auth_chain": [{}]},
    {"pdus": [], "events": [], "pdu_ids": ["x"], "auth_chain_ids": ["\x00"], "auth_chain": []},
    {"events": [{"room_id": "!x:y", "type": 5}], "pdus": [{"event_id": "$x", "depth": "1"}]},
)
READS = ("missing", "state_ids", "state", "event", "event_auth", "backfill")


def always(answer: Any, status: int = 200) -> Handler:
    """A handler that gives the same answer to everything."""
    return lambda request: Reply(answer, status)


def endless() -> Iterator[bytes]:
    """A JSON document that never ends."""
    yield b'{"events":["'
    while True:
        yield b"x" * 65536


def trickle() -> Iterator[bytes]:
    """One byte after the other."""
    yield b"{"
    while True:
        yield b" "


class AnswersTest(HostilePeerCase):
    """An event whose predecessors are missing makes Hearth ask the peer."""

    def answer_all(self, answer: Any) -> None:
        """Every reading endpoint answers the same."""
        for name in READS:
            self.peer.on[name] = answer

    async def provoke(self) -> Event:
        """Send an event whose predecessor is nowhere; Hearth asks for what is missing."""
        asked = len(self.peer.requests)
        event = self.said(prev=[NOWHERE], depth=1000)
        status, answer = await self.peer.send(self.hearth.name, [event])
        self.assertEqual(status, 200, answer)
        await eventually(
            lambda: any(each.name in READS for each in self.peer.requests[asked:]), "being asked"
        )
        return event

    async def test_rubbish(self) -> None:
        for rubbish in RUBBISH:
            self.answer_all(always(rubbish))
            event = await self.provoke()
            self.assertFalse(await self.has(event))
        await self.unharmed()

    async def test_errors(self) -> None:
        for status in (301, 400, 403, 404, 429, 500, 502):
            self.answer_all(always({"errcode": "M_X"}, status))
            event = await self.provoke()
            self.assertFalse(await self.has(event))
        await self.unharmed()

    async def test_endless_answers(self) -> None:
        """A response that never ends is cut off, and is not kept in memory."""
        self.answer_all(lambda request: Reply(endless()))
        event = await self.provoke()
        self.assertFalse(await self.has(event))
        await self.unharmed(grown_by=160 * MIB, patience=90)

    async def test_slow_answers(self) -> None:
        """A slow-loris peer delays its own events only."""
        self.answer_all(lambda request: Reply(trickle(), pause=0.2))
        await self.provoke()
        said = await self.alice.send(self.room_id, "meanwhile")
        self.assertTrue(await self.has(said))
        self.peer.on.clear()
        await self.unharmed(patience=90)

    async def test_no_answers(self) -> None:
        self.answer_all(lambda request: Reply(hang=True))
        await self.provoke()
        said = await self.alice.send(self.room_id, "meanwhile")
        self.assertTrue(await self.has(said))
        self.peer.on.clear()
        await self.unharmed(patience=90)

    async def test_rewritten_history(self) -> None:
        """get_missing_events gives a history in which mallory is the room's master."""
        create = self.room.state[("m.room.create", "")]
        power = {"users": {self.mallory: 100, self.alice.user_id: 0}}
        usurped = self.room.make("m.room.power_levels", power, self.mallory, "", prev=[create])
        forged = self.room.make(
            "m.room.member",
            {"membership": "ban"},
            self.mallory,
            self.alice.user_id,
            prev=[usurped],
            auth=[create, usurped, self.room.state[("m.room.member", self.mallory)]],
        )
        last = self.said(prev=[forged], depth=1000)
        for event in (usurped, forged, last):
            self.room.events[event.event_id] = event
        self.peer.on["missing"] = lambda request: {"events": [usurped.pdu, forged.pdu]}
        status, _ = await self.peer.send(self.hearth.name, [last])
        self.assertEqual(status, 200)
        await eventually(lambda: self.peer.received("missing"))
        await self.unharmed()
        self.assertFalse(await self.has(usurped))
        self.assertFalse(await self.has(forged))

    async def test_events_of_another_room(self) -> None:
        theirs = self.peer.create_room(self.version)
        told = [theirs.events[each].pdu for each in theirs.state.values()]
        self.answer_all(
            lambda request: {
                "events": told,
                "pdus": told,
                "auth_chain": told,
                "pdu_ids": list(theirs.state.values()),
                "auth_chain_ids": [],
            }
        )
        event = await self.provoke()
        self.assertFalse(await self.has(event))
        await self.unharmed()

    async def _with_state(self, change: Any) -> None:
        """Send an event before which, as the peer tells, the state is what `change` makes."""
        state = [self.room.events[each] for each in self.room.state.values()]
        chain = self.room.auth_chain([each.event_id for each in state])
        state = change(state)
        hidden = self.said("hidden", prev=[NOWHERE], depth=500)
        event = self.said("told", prev=[hidden], depth=501)
        known = {each.event_id: each for each in [*state, *chain, hidden, event]}
        self.peer.on["missing"] = lambda request: {"events": []}
        self.peer.on["state_ids"] = lambda request: {
            "pdu_ids": [each.event_id for each in state],
            "auth_chain_ids": [each.event_id for each in chain],
        }
        self.peer.on["state"] = lambda request: {
            "pdus": [each.pdu for each in state],
            "auth_chain": [each.pdu for each in chain],
        }

        def one(request: Received) -> Any:
            found = known.get(request.parts[0])
            return None if found is None else {"pdus": [found.pdu]}

        self.peer.on["event"] = one
        status, answer = await self.peer.send(self.hearth.name, [event])
        self.assertEqual(status, 200, answer)
        await eventually(
            lambda: self.peer.received("state_ids") or self.peer.received("state"), "being asked"
        )
        await self.unharmed()

    async def test_state_without_create(self) -> None:
        await self._with_state(lambda state: [each for each in state if not each.is_create])

    async def test_state_without_power_levels(self) -> None:
        await self._with_state(
            lambda state: [each for each in state if each.type != "m.room.power_levels"]
        )

    async def test_empty_state(self) -> None:
        await self._with_state(lambda state: [])

    async def test_state_twice(self) -> None:
        """Two events for one key."""
        other = self.room.make("m.room.member", {"membership": "join"}, self.mallory, self.mallory)
        await self._with_state(lambda state: [*state, other])

    async def test_state_with_forged_power(self) -> None:
        """A state whose power levels mallory made, who has no right to."""
        create = self.room.state[("m.room.create", "")]
        levels = self.room.make(
            "m.room.power_levels", {"users": {self.mallory: 100}}, self.mallory, "", prev=[create]
        )
        await self._with_state(
            lambda state: [
                *(each for each in state if each.type != "m.room.power_levels"),
                levels,
            ]
        )

    async def test_backfill(self) -> None:
        """Rubbish and lies instead of history: alice's paging ends."""
        theirs = self.peer.create_room("10")
        for number in range(5):
            theirs.message(self.mallory, f"m{number}")
        for answer in (*RUBBISH, {"pdus": [self.said("other room").pdu]}):
            self.peer.on["backfill"] = always(answer)
            status, _ = await self.alice.call("GET", f"/rooms/{self.room_id}/messages?dir=b")
            self.assertEqual(status, 200)
        await self.unharmed()


class JoinsTest(HostilePeerCase):
    """Hearth's user joins rooms of the peer, which cheats."""

    async def attempt(self, room: PeerRoom) -> int:
        """alice tries to join; the status."""
        status, answer = await self.alice.call(
            "POST", f"/join/{room.room_id}", {}, query={"server_name": self.peer.name}
        )
        self.assertNotEqual(status, 500, answer)
        self.assertNotIn((answer or {}).get("errcode"), ("M_UNKNOWN_TOKEN",))
        return status

    async def rooms(self) -> list[str]:
        rooms: list[str] = (await self.alice.ok("GET", "/joined_rooms"))["joined_rooms"]
        return rooms

    async def test_honest(self) -> None:
        room = self.peer.create_room("10")
        self.assertEqual(await self.attempt(room), 200)
        self.assertIn(room.room_id, await self.rooms())
        await self.unharmed()

    async def test_make_join_rubbish(self) -> None:
        room = self.peer.create_room("10")
        template = {"type": "m.room.member", "room_id": room.room_id, "sender": self.mallory}
        wrong = (
            *RUBBISH,
            {"event": {}, "room_version": "10"},
            {"event": template, "room_version": "10"},
            {"event": {**template, "depth": 2**70}, "room_version": "10"},
            {"event": {}, "room_version": "does not exist"},
            {"event": {}, "room_version": 5},
        )
        for answer in wrong:
            self.peer.on["make_join"] = always(answer)
            self.assertNotEqual(await self.attempt(room), 200)
        self.assertEqual(await self.rooms(), [self.room_id])
        await self.unharmed()

    async def test_template_of_another_event(self) -> None:
        """Shows FJ-3: nothing but a join of alice's gets Hearth's signature."""
        room = self.peer.create_room("10")
        honest = room.make("m.room.member", {"membership": "join"}, self.alice.user_id,
                           self.alice.user_id).pdu  # fmt: skip
        for key, value in (
            ("type", "m.room.power_levels"),
            ("state_key", self.mallory),
            ("sender", self.mallory),
            ("room_id", self.room_id),
            ("content", {"membership": "ban"}),
        ):
            template = {**honest, key: value}
            self.peer.on["make_join"] = always({"event": template, "room_version": "10"})
            await self.attempt(room)
        for request in self.peer.received("send_join"):
            pdu = request.body
            self.assertEqual(pdu["type"], "m.room.member")
            self.assertEqual((pdu["sender"], pdu["state_key"]), (self.alice.user_id,) * 2)
            self.assertEqual(pdu["content"]["membership"], "join")
            self.assertEqual(pdu["room_id"], room.room_id)
        await self.unharmed()

    async def test_send_join_rubbish(self) -> None:
        room = self.peer.create_room("10")
        for answer in RUBBISH:
            self.peer.on["send_join"] = always(answer)
            self.assertNotEqual(await self.attempt(room), 200)
        self.assertEqual(await self.rooms(), [self.room_id])
        await self.unharmed()

    async def _told(self, change: Any) -> int:
        """The status of a join whose answer is changed."""
        room = self.peer.create_room("10")

        def answer(request: Received) -> Any:
            honest: Any = self.peer.answer_send_join(request)
            state = [room.event_of(pdu) for pdu in honest["state"]]
            chain = [room.event_of(pdu) for pdu in honest["auth_chain"]]
            state, chain = change(room, state, chain)
            told = {"state": [e.pdu for e in state], "auth_chain": [e.pdu for e in chain]}
            return {**honest, **told}

        self.peer.on["send_join"] = answer
        status = await self.attempt(room)
        self.peer.on.clear()
        await self.unharmed()
        return status

    async def test_state_without_create(self) -> None:
        """Shows FJ-8."""

        def change(room: PeerRoom, state: list[Event], chain: list[Event]) -> Any:
            return (
                [each for each in state if not each.is_create],
                [each for each in chain if not each.is_create],
            )

        self.assertNotEqual(await self._told(change), 200)

    async def test_state_of_another_room(self) -> None:
        def change(room: PeerRoom, state: list[Event], chain: list[Event]) -> Any:
            other = self.peer.create_room("10")
            return [other.events[each] for each in other.state.values()], []

        self.assertNotEqual(await self._told(change), 200)

    async def test_state_with_forged_signatures(self) -> None:
        """Shows FJ-7: what nobody signed is left out, the rest is a room."""

        def change(room: PeerRoom, state: list[Event], chain: list[Event]) -> Any:
            forged = room.make(
                "m.room.topic", {"topic": "x"}, f"@x:{self.hearth.name}", "", signer="localhost:1"
            )
            return [*state, forged], chain

        self.assertEqual(await self._told(change), 200)

    async def test_endless_send_join(self) -> None:
        room = self.peer.create_room("10")
        numbers = itertools.count()

        def events() -> Iterator[bytes]:
            yield b'{"state":['
            while True:
                yield b'{"a":"' + str(next(numbers)).encode() + b"x" * 65536 + b'"},'

        self.peer.on["send_join"] = lambda request: Reply(events())
        self.assertNotEqual(await self.attempt(room), 200)
        await self.unharmed(grown_by=400 * MIB)
