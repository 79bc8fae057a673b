"""Transactions of a scripted server, over TLS."""

from __future__ import annotations

import copy
from typing import Any, cast

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from federation.server import transactions as module
from federation.server.edus.registry import EduHandlers
from federation.server.transactions import Transactions
from homeserver.core.errors import MatrixError
from homeserver.core.types import JsonObject
from homeserver.rooms.inbound import Inbound, Keeping
from storage import processes, received
from storage.machine import Machine
from storage.processes import Process
from storage.received import Begun
from tests.federation.server.scene import Scene, quoted
from tests.support.databases import DatabaseTestCase, on_each_database, reactor
from tests.support.federation import eventually
from tests.support.peer import PeerRoom, make_peer

RUBBISH: tuple[Any, ...] = (
    None, 1, 1.5, True, "x", [], {}, [[]], {"room_id": 5}, {"room_id": "!x:y", "content": []},
)  # fmt: skip


NO_PID = 2**22 + 1
"""Above the highest that Linux gives."""


class TransactionCase(Scene):
    """The peer's mallory is in alice's room."""

    async def enter(self, version: str = "10") -> PeerRoom:
        await self.begin()
        self.room_id = await self.room(version)
        self.model = await self.peer.join(self.hearth.name, self.room_id)
        return self.model

    async def transaction(self, *pdus: Any, **options: Any) -> dict[str, Any]:
        """The `pdus` of the answer to a transaction, which succeeds."""
        status, answer = await self.peer.send(self.hearth.name, pdus, **options)
        self.assertEqual(status, 200, answer)
        self.assertEqual(list(answer), ["pdus"])
        found: dict[str, Any] = answer["pdus"]
        return found

    async def shown(self) -> list[str]:
        """Bodies of the messages that alice sees, oldest first."""
        path = f"/rooms/{quoted(self.room_id)}/messages"
        answer = await self.alice.ok("GET", path, query={"dir": "b", "limit": 100})
        events = [event for event in answer["chunk"] if event["type"] == "m.room.message"]
        return [event["content"].get("body") for event in reversed(events)]

    def unsent(self, body: str = "bad", **top_level: Any) -> JsonObject:
        """The signed PDU of a message that the model does not go on after."""
        content = {"msgtype": "m.text", "body": body}
        event = self.model.make("m.room.message", content, self.mallory)
        pdu = copy.deepcopy(event.pdu)
        if top_level:
            pdu.pop("signatures")
            pdu.pop("hashes")
            pdu = self.model.signed({**pdu, **top_level}).pdu
        return pdu


class TransactionTest(TransactionCase):
    async def test_events_are_added_and_answered_by_id(self) -> None:
        """Shows TXN-6."""
        for version in ("1", "6", "12"):
            model = await self.enter(version)
            one, two = model.message(self.mallory, "one"), model.message(self.mallory, "two")
            found = await self.transaction(two, one)
            self.assertEqual(found, {one.event_id: {}, two.event_id: {}})
            self.assertEqual(await self.shown(), ["one", "two"])

    async def test_what_was_answered_is_stored(self) -> None:
        model = await self.enter()
        await self.transaction(model.message(self.mallory, "kept"))
        await self.hearth.restart()
        self.alice.server.client = self.hearth.client
        self.assertEqual(await self.shown(), ["kept"])

    async def test_at_most_50_pdus_and_100_edus(self) -> None:
        """Shows TXN-1."""
        model = await self.enter()
        events = [model.message(self.mallory, str(number)) for number in range(51)]
        status, answer = await self.peer.send(self.hearth.name, events)
        self.assertEqual((status, answer["errcode"]), (400, "M_TOO_LARGE"))
        edu = {"edu_type": "org.example", "content": {}}
        status, answer = await self.peer.send(self.hearth.name, (), [edu] * 101)
        self.assertEqual((status, answer["errcode"]), (400, "M_TOO_LARGE"))
        self.assertEqual(await self.shown(), [])
        found = await self.transaction(*events[:50], edus=[edu] * 100)
        self.assertEqual(len(found), 50)
        self.assertEqual(await self.shown(), [str(number) for number in range(50)])

    async def test_malformed_transactions(self) -> None:
        await self.enter()
        path = "/_matrix/federation/v1/send/t"
        name = self.peer.name
        bodies: list[JsonObject] = [
            {"origin": name, "pdus": {}},
            {"origin": name, "pdus": [], "edus": "x"},
            {"origin": "other.example", "pdus": []},
            {"origin": [name], "pdus": []},
            {"pdus": []},
        ]
        for body in bodies:
            status, answer = await self.peer.request("PUT", self.hearth.name, path, body)
            self.assertEqual(status, 400, answer)
        long_path = "/_matrix/federation/v1/send/" + "x" * 256
        body = {"origin": name, "pdus": []}
        status, _ = await self.peer.request("PUT", self.hearth.name, long_path, body)
        self.assertEqual(status, 400)
        # Servers of some makes write null.
        body = {"origin": name, "pdus": None, "edus": None}
        status, _ = await self.peer.request("PUT", self.hearth.name, path, body)
        self.assertEqual(status, 200)

    async def test_they_are_counted(self) -> None:
        model = await self.enter()
        metrics = self.hearth.homeserver.metrics.registry

        def count(outcome: str) -> float | None:
            name = "hearth_federation_received_transactions_total"
            return metrics.get_sample_value(name, {"outcome": outcome})

        before = count("new")
        message = model.message(self.mallory, "one")
        for _ in range(3):
            await self.transaction(message, txn_id="same")
        self.assertEqual((before, count("new"), count("repeated")), (0, 1, 2))
        # One whose predecessor was never sent is asked for.
        model.message(self.mallory, "kept back")
        await self.transaction(model.message(self.mallory, "last"))
        await eventually(lambda: self.asked(metrics, "get_missing_events"))

    def asked(self, metrics: Any, kind: str) -> bool:
        labels = {"kind": kind, "outcome": "answered"}
        return bool(metrics.get_sample_value("hearth_federation_fetches_total", labels))

    async def test_a_repeated_transaction(self) -> None:
        """Shows TXN-2."""
        model = await self.enter()
        one, other = model.message(self.mallory, "one"), model.message(self.mallory, "other")
        first = await self.transaction(one, txn_id="same")
        again = await self.transaction(other, txn_id="same")
        self.assertEqual(again, first)
        self.assertEqual(await self.shown(), ["one"])
        await self.hearth.restart()
        self.assertEqual(await self.transaction(other, txn_id="same"), first)

    async def test_a_repetition_of_another_server_is_another_transaction(self) -> None:
        """Shows TXN-2."""
        model = await self.enter()
        other = await make_peer(self, self.federation)
        theirs = await other.join(self.hearth.name, self.room_id)
        await self.transaction(model.message(self.mallory, "one"), txn_id="same")
        for event in list(model.events.values()):
            if event.event_id not in theirs.events:
                theirs.add(event)
        event = theirs.message(other.user(), "two")
        status, answer = await other.send(self.hearth.name, [event], txn_id="same")
        self.assertEqual((status, answer), (200, {"pdus": {event.event_id: {}}}))


class BadEventsTest(TransactionCase):
    async def test_one_bad_event_harms_no_other(self) -> None:
        """Shows RECV-2, TXN-6."""
        model = await self.enter()
        forged = self.unsent("forged")
        forged["signatures"] = {self.peer.name: {self.peer.key.key_id: "A" * 86}}
        large = self.unsent("x" * 66_000)
        nobody = self.unsent("nobody", sender=f"@nobody:{self.peer.name}")
        misshapen = {**self.unsent("misshapen"), "depth": "deep"}
        floating = {**self.unsent("floating"), "depth": 1.5}
        foreign = self.unsent("foreign", sender=self.alice.user_id)
        unknown = self.unsent("unknown", room_id="!unknown:example.org")
        good = model.message(self.mallory, "good")
        bad = [forged, large, nobody, misshapen, floating, foreign, unknown]
        found = await self.transaction(*RUBBISH, *bad[:4], good, *bad[4:])
        self.assertEqual(found.pop(good.event_id), {})
        self.assertTrue(all(list(each) == ["error"] for each in found.values()), found)
        for pdu in (forged, large, nobody, foreign):
            self.assertIn(model.event_of(pdu).event_id, found)
        self.assertEqual(await self.shown(), ["good"])

    async def test_a_wrong_content_hash(self) -> None:
        """The event goes into the room, redacted."""
        model = await self.enter()
        pdu = self.unsent("true")
        pdu["content"]["body"] = "false"
        event_id = model.event_of(pdu).event_id
        self.assertEqual(await self.transaction(pdu), {event_id: {}})
        self.assertEqual(await self.shown(), [None])

    async def test_a_room_of_which_nobody_here_is_a_member(self) -> None:
        model = await self.enter()
        await self.alice.leave(self.room_id)
        event = model.message(self.mallory, "gone")
        answer = (await self.transaction(event))[event.event_id]
        self.assertIn("not in the room", answer["error"])

    async def test_a_rejected_event(self) -> None:
        """Shows TXN-6."""
        model = await self.enter()
        event = model.make("m.room.topic", {"topic": "mine"}, self.mallory, "")
        self.assertIn("error", (await self.transaction(event))[event.event_id])

    async def test_a_denied_server(self) -> None:
        """Shows ACL-3."""
        model = await self.enter()
        free = await self.alice.create_room(room_version="10", preset="public_chat")
        other = await self.peer.join(self.hearth.name, free)
        content = {"allow": ["*"], "deny": ["localhost"]}
        await self.alice.set_state(self.room_id, "m.room.server_acl", content)
        denied, allowed = model.message(self.mallory, "no"), other.message(self.mallory, "yes")
        found = await self.transaction(denied, allowed)
        self.assertIn("access control", found[denied.event_id]["error"])
        self.assertEqual(found[allowed.event_id], {})
        self.assertEqual(await self.shown(), [])

    async def test_a_transaction_of_one_room_twice_the_same_event(self) -> None:
        model = await self.enter()
        event = model.message(self.mallory, "once")
        self.assertEqual(await self.transaction(event, event), {event.event_id: {}})
        self.assertEqual(await self.transaction(event), {event.event_id: {}})
        self.assertEqual(await self.shown(), ["once"])


class GapTest(TransactionCase):
    async def test_missing_events_are_got(self) -> None:
        model = await self.enter()
        for number in range(5):
            model.message(self.mallory, f"kept back {number}")
        last = model.message(self.mallory, "last")
        self.assertEqual(await self.transaction(last), {last.event_id: {}})
        await eventually(self._has_last)
        expected = [f"kept back {number}" for number in range(5)]
        self.assertEqual(await self.shown(), [*expected, "last"])

    async def _has_last(self) -> bool:
        return (await self.shown())[-1:] == ["last"]

    async def test_a_server_that_keeps_events_back_does_not_stop_the_room(self) -> None:
        """Events that cannot be completed wait, and others go on."""
        model = await self.enter()
        for name in ("missing", "event", "state", "state_ids", "event_auth", "backfill"):
            self.peer.on[name] = lambda request: None
        before = list(model.heads)
        model.message(self.mallory, "kept back")
        stuck = model.message(self.mallory, "stuck")
        self.assertEqual(await self.transaction(stuck), {stuck.event_id: {}})
        model.heads = before
        good = model.message(self.mallory, "good")
        self.assertEqual(await self.transaction(good), {good.event_id: {}})

        async def arrived() -> bool:
            return await self.shown() == ["good"]

        await eventually(arrived)

    async def test_staged_events_survive_a_restart(self) -> None:
        model = await self.enter()
        model.message(self.mallory, "kept back")
        last = model.message(self.mallory, "last")
        self.federation.cut(self.hearth, self.peer)
        self.assertEqual(await self.transaction(last), {last.event_id: {}})
        await self.hearth.stop()
        self.federation.heal()
        await self.hearth.start()
        self.alice.server.client = self.hearth.client
        db = self.hearth.homeserver.db
        await db.write(lambda txn: txn.execute("UPDATE staged_pdus SET next_try_ts = 0"))
        await eventually(self._has_last)


class EarlyReceiptTest(TransactionCase):
    async def test_a_receipt_that_comes_before_its_event(self) -> None:
        """Shows TXN-9."""
        model = await self.enter()
        event = model.message(self.mallory, "late")
        receipt = {"event_ids": [event.event_id], "data": {"ts": 5}}
        content = {self.room_id: {"m.read": {self.mallory: receipt}}}
        await self.transaction(edus=[{"edu_type": "m.receipt", "content": content}])
        await self.transaction(event)

        async def shown() -> bool:
            room = (await self.alice.sync())["rooms"]["join"][self.room_id]
            told = [each["content"] for each in room.get("ephemeral", {}).get("events", [])]
            return {event.event_id: {"m.read": {self.mallory: {"ts": 5}}}} in told

        await eventually(shown)


class InviteTest(TransactionCase):
    async def test_a_revoked_invite(self) -> None:
        """Shows FJ-16."""
        await self.begin()
        model = self.peer.create_room()
        await self.peer.invite(self.hearth.name, model, self.alice.user_id)
        self.assertIn(model.room_id, (await self.alice.sync())["rooms"]["invite"])
        content = {"membership": "leave"}
        event = model.grow("m.room.member", content, self.mallory, self.alice.user_id)
        self.assertEqual(await self.transaction(event), {event.event_id: {}})
        self.assertNotIn(
            model.room_id, (await self.alice.sync()).get("rooms", {}).get("invite", {})
        )


class FakeInbound:
    """Counts the transactions that are worked on; `hold` keeps them waiting."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.hold: Deferred[None] | None = None
        self.fails = False

    async def receive(self, origin: str, pdus: Any, keeping: Keeping | None = None) -> JsonObject:
        if keeping is not None and await keeping.look_up():
            return {}
        self.seen.append(pdus)
        if self.hold is not None:
            waiter: Deferred[None] = Deferred()
            self.hold.chainDeferred(waiter)
            await waiter
        if self.fails:
            raise MatrixError(503, "M_UNKNOWN", "on purpose")
        return {"$x": {}}


@on_each_database
class OnceTest(DatabaseTestCase):
    async def prepare(self) -> None:
        self.url = self.database_url()
        self.db = await self.open(self.url)
        self.inbound = FakeInbound()
        self.transactions = self.make(self.db)

    def make(self, db: Any) -> Transactions:
        return Transactions(db, cast(Inbound, self.inbound), EduHandlers(reactor), reactor)

    def begin(self, transactions: Transactions, txn_id: str = "t", origin: str = "a.b") -> Any:
        edu = {"edu_type": "org.example.unknown", "content": {}}
        return Deferred.fromCoroutine(transactions.receive(origin, txn_id, [{}], [edu]))

    async def test_simultaneous_repetitions_in_one_process(self) -> None:
        """Shows TXN-2."""
        waiting = [self.begin(self.transactions) for _ in range(5)]
        self.assertEqual(len(set(await gatherResults(waiting))), 1)
        self.assertEqual(len(self.inbound.seen), 1)

    async def test_simultaneous_repetitions_in_two_processes(self) -> None:
        """Shows TXN-2."""
        other_db = await self.open(self.url)
        for db in (self.db, other_db):
            process = Process(db.process_token, "host", 1, 0, 0)
            await db.write(processes.beat, process)
        other = self.make(other_db)
        self.inbound.hold = Deferred()
        waiting = [self.begin(self.transactions), self.begin(other)]
        await eventually(lambda: bool(self.inbound.seen))
        self.inbound.hold.callback(None)
        answers = await gatherResults(waiting)
        self.assertEqual((len(set(answers)), len(self.inbound.seen)), (1, 1))

    async def test_simultaneous_repetitions_of_events_in_two_processes(self) -> None:
        """Events are added only once anyway; the answer is the same. Shows TXN-2."""
        other = self.make(await self.open(self.url))
        self.inbound.hold = Deferred()
        waiting = [
            Deferred.fromCoroutine(each.receive("a.b", "t", [{}], []))
            for each in (self.transactions, other)
        ]
        await eventually(lambda: len(self.inbound.seen) == 2)
        self.inbound.hold.callback(None)
        self.inbound.hold = None
        self.assertEqual(len(set(await gatherResults(waiting))), 1)
        again = await other.receive("a.b", "t", [{}], [])
        self.assertEqual((again, len(self.inbound.seen)), (await waiting[0], 2))

    async def test_a_process_that_died_in_between(self) -> None:
        """Shows TXN-2."""
        await self.db.write(received.begin, "a.b", "t", "dead", 1)
        await self.begin(self.transactions)
        self.assertEqual(len(self.inbound.seen), 1)

    async def test_a_process_of_this_machine_that_was_killed_in_between(self) -> None:
        """Shows TXN-2: nobody noticed yet, and the repetition does not wait for that."""
        killed = Process("killed", Machine().name, NO_PID, 0, 0)
        await self.db.write(processes.beat, killed)
        await self.db.write(received.begin, "a.b", "t", "killed", 1)
        found = await self.db.write(received.begin, "a.b", "t", "other", 1)
        self.assertEqual(found, (False, None))
        await self.begin(self.transactions)
        self.assertEqual(len(self.inbound.seen), 1)

    async def test_a_failed_transaction_may_be_repeated(self) -> None:
        self.inbound.fails = True
        with self.assertRaises(MatrixError):
            await self.begin(self.transactions)
        self.inbound.fails = False
        await self.begin(self.transactions)
        self.assertEqual(len(self.inbound.seen), 2)

    async def test_those_of_one_server_have_turns(self) -> None:
        self.inbound.hold = Deferred()
        waiting = [self.begin(self.transactions, f"t{n}") for n in range(module.MAX_QUEUED)]
        elsewhere = self.begin(self.transactions, origin="c.d")
        await eventually(lambda: len(self.inbound.seen) == 2)
        with self.assertRaises(MatrixError) as caught:
            await self.transactions.receive("a.b", "more", [{}], [])
        self.assertEqual(caught.exception.status, 429)
        self.inbound.hold.callback(None)
        self.inbound.hold = None
        await gatherResults([*waiting, elsewhere])
        self.assertEqual(self.transactions._turns, {})

    async def test_old_ones_are_forgotten(self) -> None:
        await self.begin(self.transactions)
        forgotten = await self.db.write(received.forget_before, 10**15)
        self.assertEqual(forgotten, 1)
        begun = await self.db.write(received.begin, "a.b", "t", self.db.process_token, 1)
        self.assertEqual(begun, Begun(mine=True))


class PruneTest(TestCase):
    def test_it_prunes_by_age(self) -> None:
        asked = []

        class FakeDatabase:
            async def write(self, fn: Any, *args: Any) -> int:
                asked.append((fn, args))
                return 0

        clock = Clock()
        clock.advance(1_000_000)
        db = cast(Any, FakeDatabase())
        transactions = Transactions(db, cast(Inbound, None), EduHandlers(clock), clock)
        transactions.start()
        clock.advance(module.PRUNE_EVERY_S)
        transactions.stop()
        before = int((1_000_000 + module.PRUNE_EVERY_S) * 1000) - module.KEEP_MS
        self.assertEqual(asked, [(received.forget_before, (before,))])
