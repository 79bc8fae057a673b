"""A peer that sends what it must not: forged, foreign, malformed, endless events."""

from __future__ import annotations

import copy
from typing import Any

from homeserver.core import canonical
from homeserver.core.event import Event
from homeserver.core.signing import encode_base64, generate_signing_key
from tests.conformance.hostile_peer import HostilePeerCase
from tests.support.federation import eventually
from tests.support.peer import make_peer

OTHER_KEY = generate_signing_key("peer", b"another key of no server at all.")


class ForgedEventsTest(HostilePeerCase):
    async def test_forged_signatures(self) -> None:
        """Shows RECV-2."""
        wrong_key = self.said(key=OTHER_KEY)
        unsigned = copy.deepcopy(self.said().pdu)
        unsigned["signatures"] = {}
        other_name = self.said(signer="localhost:1")
        for_alice = self.room.make(
            "m.room.topic", {"topic": "forged"}, self.alice.user_id, "", signer=self.hearth.name
        )
        by_alice = self.room.make("m.room.topic", {"topic": "forged"}, self.alice.user_id, "")
        events = [wrong_key, self.room.event_of(unsigned), other_name, for_alice, by_alice]
        await self.refused(*events)
        await self.unharmed()

    async def test_signatures_that_are_no_signatures(self) -> None:
        pdus = []
        name = self.peer.name
        wrong: list[Any] = [None, [], "x", {name: None}, {name: {"ed25519:peer": 5}}]
        wrong += [{name: {"ed25519:peer": "****"}}, {name: {"x": "y"}}]
        for rubbish in wrong:
            pdu = copy.deepcopy(self.said().pdu)
            pdu["signatures"] = rubbish
            pdus.append(pdu)
        status, answer = await self.peer.send(self.hearth.name, pdus)
        self.assertEqual(status, 200, answer)
        self.assertTrue(all("error" in verdict for verdict in answer["pdus"].values()))
        await self.unharmed()

    async def test_wrong_origin(self) -> None:
        """Shows KEY-8, KEY-9: what the body claims, and what the header claims."""
        status, _ = await self.peer.send(self.hearth.name, [self.said()], origin="localhost:1")
        self.assertIn(status, (200, 400, 401, 403))
        path = "/_matrix/federation/v1/send/wrongorigin"
        body: dict[str, Any] = {
            "origin": self.peer.name,
            "origin_server_ts": self.peer.now(),
            "pdus": [self.said("forged").pdu],
        }
        for options in (
            {"origin": self.hearth.name},
            {"origin": "localhost:1"},
            {"key": OTHER_KEY},
            {"meant_for": "localhost:1"},
            {"signed": False},
        ):
            status, answer = await self.peer.request("PUT", self.hearth.name, path, body, **options)
            self.assertEqual(status, 401, (options, answer))
        await self.unharmed()

    async def test_another_server_speaks_for_a_user(self) -> None:
        """A third server, itself honest in its signature, sends as mallory."""
        third = await make_peer(self, self.federation)
        room = await third.join(self.hearth.name, self.room_id, "trudy")
        self.before = await self.state()
        forged = room.make("m.room.message", {"body": "forged"}, self.mallory)
        status, answer = await third.send(self.hearth.name, [forged])
        self.assertEqual(status, 200)
        self.assertIn("error", answer["pdus"][forged.event_id])
        self.assertFalse(await self.has(forged))
        await self.unharmed()

    async def test_wrong_hashes(self) -> None:
        """The event goes on in its redacted form, without what was forged."""
        pdu = copy.deepcopy(self.said("original").pdu)
        pdu["content"]["body"] = "forged"
        changed = self.room.event_of(pdu)
        status, answer = await self.peer.send(self.hearth.name, [pdu])
        self.assertEqual(status, 200, answer)
        if await self.has(changed):
            event = await self.alice.ok("GET", f"/rooms/{self.room_id}/event/{changed.event_id}")
            self.assertEqual(event["content"], {})
        await self.unharmed()

    async def test_hashes_that_are_no_hashes(self) -> None:
        wrong: list[Any] = [None, [], "x", {}, {"sha256": 5}, {"sha256": "***"}, {"md5": "x"}]
        for rubbish in wrong:
            pdu = copy.deepcopy(self.said().pdu)
            pdu["hashes"] = rubbish
            status, answer = await self.peer.send(self.hearth.name, [pdu])
            self.assertEqual(status, 200, answer)
        await self.unharmed()

    async def test_events_of_other_rooms(self) -> None:
        """Shows BF-10: auth and prev events of another room; rooms that the sender is not in."""
        theirs = self.peer.create_room(self.version)
        mixed_auth = self.said(auth=list(theirs.state.values()))
        mixed_prev = self.said(prev=theirs.heads)
        unknown_room = theirs.make("m.room.message", {"body": "x"}, self.mallory)
        await self.not_shown([mixed_auth, mixed_prev, unknown_room])
        secret = await self.alice.create_room(preset="private_chat", room_version=self.version)
        uninvited = self.said(room_id=secret)
        await self.refused(uninvited)
        self.assertFalse(await self.has(uninvited, secret))
        await self.unharmed()

    async def test_events_without_right(self) -> None:
        """Shows RECV-3: sound events that the rules forbid change nothing."""
        create = self.room.state[("m.room.create", "")]
        power = {"users": {self.mallory: 100}}
        banned = {"membership": "ban"}
        events = [
            self.room.make("m.room.power_levels", power, self.mallory, ""),
            self.room.make("m.room.member", banned, self.mallory, self.alice.user_id),
            self.room.make("m.room.topic", {"topic": "mine"}, self.mallory, ""),
            self.room.make("m.room.create", {"room_version": "10"}, self.mallory, ""),
            self.room.make("m.room.topic", {"topic": "mine"}, self.mallory, "", auth=[create]),
            self.room.make("m.room.topic", {"topic": "mine"}, self.mallory, "", auth=[]),
            self.room.make("m.room.topic", {"topic": "mine"}, self.mallory, "", prev=[create]),
            self.room.make("m.room.message", {}, self.peer.user("nobody")),
        ]
        await self.refused(*events)
        await self.unharmed()

    async def test_chosen_auth_events(self) -> None:
        """Auth events from before the power levels: authorised by them alone, not by the state."""
        state = {
            key: event_id
            for key, event_id in self.room.state.items()
            if key[0] in ("m.room.create", "m.room.member")
        }
        event = self.room.make("m.room.topic", {"topic": "mine"}, self.mallory, "", state=state)
        await self.refused(event)
        await self.unharmed()


class MalformedEventsTest(HostilePeerCase):
    async def test_rubbish_instead_of_events(self) -> None:
        """Shows RECV-2: each PDU that is none is passed over, the others are taken."""
        good = self.said("good")
        rubbish: list[Any] = [None, 5, "x", [], {}, {"room_id": 5}, {"room_id": self.room_id}]
        for key, value in (
            ("type", 5), ("sender", "x"), ("content", []), ("depth", -1), ("depth", 2**63),
            ("depth", "1"), ("prev_events", "x"), ("prev_events", [5]), ("prev_events", [[]]),
            ("auth_events", None), ("origin_server_ts", "now"), ("origin_server_ts", -1),
            ("state_key", 5), ("room_id", "!other"), ("room_id", None), ("unsigned", "x"),
        ):  # fmt: skip
            pdu = copy.deepcopy(self.said().pdu)
            pdu[key] = value
            rubbish.append(pdu)
        status, answer = await self.peer.send(self.hearth.name, [*rubbish, good])
        self.assertEqual(status, 200, answer)
        self.assertTrue(await self.has(good))
        await self.unharmed()

    async def test_transactions_that_are_none(self) -> None:
        """Shows TXN-1."""
        path = "/_matrix/federation/v1/send/{}"
        bodies: list[dict[str, Any]] = [
            {},
            {"pdus": 5},
            {"pdus": {}},
            {"pdus": [], "edus": 7},
            {"origin": 5, "pdus": []},
            {"origin_server_ts": "x", "pdus": []},
            {"pdus": [self.said(str(n)).pdu for n in range(51)]},
            {"pdus": [], "edus": [{"edu_type": "x", "content": {}}] * 101},
        ]
        for number, body in enumerate(bodies):
            status, answer = await self.peer.request(
                "PUT", self.hearth.name, path.format(f"bad{number}"), body
            )
            self.assertLess(status, 500, answer)
            if number >= 6:
                self.assertGreaterEqual(status, 400)
        await self.unharmed()

    async def test_too_large_events(self) -> None:
        """65,536 bytes are the most that an event may have."""
        size = len(_canonical(self.said("")))
        large = self.said("a" * (65_537 - size))
        self.assertEqual(len(_canonical(large)), 65_537)
        largest = self.said("a" * (65_536 - size))
        long_type = self.room.make("t" * 256, {}, self.mallory)
        long_key = self.room.make("org.example", {}, self.mallory, "k" * 256)
        await self.refused(large, long_type, long_key)
        await self.peer.sent(self.hearth.name, largest)
        self.assertTrue(await self.has(largest))
        await self.unharmed()

    async def test_too_many_references(self) -> None:
        many = [f"${encode_base64(bytes([n]) * 32)}" for n in range(21)]
        await self.refused(self.said(prev=many), self.said(auth=many))
        await self.unharmed()

    async def test_numbers_that_are_no_integers(self) -> None:
        for value in (1.5, 2**53, 1e300):
            pdu = copy.deepcopy(self.said().pdu)
            pdu["content"]["n"] = value
            status, answer = await self.peer.send(self.hearth.name, [pdu])
            self.assertEqual(status, 200, answer)
            self.assertTrue(all("error" in verdict for verdict in answer["pdus"].values()))
        await self.unharmed()

    async def test_deep_content(self) -> None:
        deep: Any = "x"
        for _ in range(150):
            deep = {"a": deep}
        status, _ = await self.peer.send(
            self.hearth.name, [self.room.make("m.room.message", {"a": deep}, self.mallory)]
        )
        self.assertLess(status, 500)
        await self.unharmed()


class GraphsTest(HostilePeerCase):
    """Graphs that no honest server makes. In room version 1 event IDs can be chosen."""

    version = "1"

    def _named(self, event_id: str, prev: list[str], auth: list[str] | None = None) -> Event:
        return self.said(event_id=f"${event_id}:{self.peer.name}", prev=prev, auth=auth)

    def _ids(self, *names: str) -> list[str]:
        return [f"${name}:{self.peer.name}" for name in names]

    async def test_cycle_in_prev_events(self) -> None:
        one = self._named("one", self._ids("two"))
        two = self._named("two", self._ids("one"))
        itself = self._named("itself", self._ids("itself"))
        for event in (one, two, itself):
            self.room.events[event.event_id] = event
        await self.not_shown([one, two, itself])
        await self.unharmed()

    async def test_cycle_in_auth_events(self) -> None:
        state = list(self.room.state.values())
        one = self._named("a1", self.room.heads, [*state[:4], *self._ids("a2")])
        two = self._named("a2", self.room.heads, [*state[:4], *self._ids("a1")])
        itself = self._named("a3", self.room.heads, self._ids("a3"))
        for event in (one, two, itself):
            self.room.events[event.event_id] = event
        await self.not_shown([one, two, itself])
        await self.unharmed()

    async def test_same_event_id_twice(self) -> None:
        first = self._named("same", self.room.heads)
        await self.peer.sent(self.hearth.name, first)
        other = self.said("other", event_id=first.event_id)
        await self.peer.send(self.hearth.name, [other])
        shown = await self.alice.ok("GET", f"/rooms/{self.room_id}/event/{first.event_id}")
        self.assertEqual(shown["content"], first.content)
        await self.unharmed()

    async def test_event_id_of_another_server(self) -> None:
        event = self.said(event_id=f"$stolen:{self.hearth.name}")
        await self.refused(event)
        await self.unharmed()


class LongChainsTest(HostilePeerCase):
    async def test_deep_auth_chain(self) -> None:
        """An auth chain of 10,000 events, all unknown, given at once when asked for."""
        await self._send_deep(is_told=True)

    async def test_deep_auth_chain_event_by_event(self) -> None:
        """The same, where the peer gives single events only."""
        await self._send_deep(is_told=False)

    async def _send_deep(self, is_told: bool) -> None:
        state = self.room.state
        create = state[("m.room.create", "")]
        member = state[("m.room.member", self.mallory)]
        last = self.room.events[member]
        for number in range(10_000):
            last = self.room.make(
                "m.room.member",
                {"membership": "join", "displayname": str(number)},
                self.mallory,
                self.mallory,
                prev=[last],
                auth=[create, last, state[("m.room.join_rules", "")]],
                depth=10 + number,
            )
            self.room.events[last.event_id] = last
        event = self.said(prev=self.room.heads, auth=[create, last])
        if is_told:
            self.room.events[event.event_id] = event
        status, answer = await self.peer.send(self.hearth.name, [event])
        self.assertEqual(status, 200, answer)
        # The chain is asked for, but not without end.
        reads = ("event_auth", "event", "state_ids", "state", "missing")
        await eventually(lambda: any(self.peer.received(name) for name in reads), "being asked")
        # What the model and the JSON of the peer take is in this, too.
        await self.unharmed(grown_by=256 * 1024 * 1024)
        asked = sum(len(self.peer.received(name)) for name in reads)
        self.assertLess(asked, 1000)

    async def test_endless_history(self) -> None:
        """Each predecessor that is asked for has one more that is missing."""

        def invent(_: Any) -> Any:
            made = self.said("invented", prev=[f"${encode_base64(bytes(32))}"], depth=5)
            self.room.events[made.event_id] = made
            return {"events": [made.pdu]}

        self.peer.on["missing"] = invent
        self.peer.on["state_ids"] = lambda request: None
        last = self.said(prev=[f"${'A' * 43}"], depth=50)
        await self.not_shown([last])
        await self.unharmed()


def _canonical(event: Event) -> bytes:
    return canonical.encode(event.pdu)
