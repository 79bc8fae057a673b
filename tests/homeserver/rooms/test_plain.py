"""Messages that are written without asking first: they are as all others, and never lost."""

from __future__ import annotations

import itertools
import json
import random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from homeserver.core import signing
from homeserver.core.errors import MatrixError
from homeserver.core.event import Event
from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.rooms import append
from homeserver.rooms.build import EventTemplate
from homeserver.rooms.requests import AppendRequest
from storage import clock, events
from storage.database import Database, Timing
from storage.errors import CommitUnknown, DatabaseUnavailable, IntegrityViolation
from storage.events import EventRow, TransactionKey
from storage.transaction import Transaction
from tests.support.concurrent import together
from tests.support.databases import DatabaseTestCase, on_each_database
from tests.support.rooms import ALICE, BOB, CAROL, KEY, SERVER_NAME, RoomServices

VERSIONS = ("3", "6", "10", "11", "12")


class Sender:
    """Sends messages with transactions, as clients do."""

    def __init__(self, services: RoomServices, device: str = "DEVICE") -> None:
        self.services = services
        self._device = device
        self._numbers = itertools.count(1)

    async def send(
        self,
        room_id: str,
        sender: str = ALICE,
        content: dict[str, Any] | None = None,
        event_type: str = "m.room.message",
        txn_id: str | None = None,
    ) -> str:
        key = TransactionKey(
            self._device, f"send/{event_type}", txn_id or f"t{next(self._numbers)}"
        )
        content = {"msgtype": "m.text", "body": "hello"} if content is None else content
        return await self.services.send(room_id, sender, content, event_type, transaction=key)


class FailingDatabase:
    """A database whose next single statements fail as told."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.failures: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)

    async def write_single(self, single: Any) -> Any:
        failure = self.failures.pop(0) if self.failures else None
        if failure is None:
            return await self._db.write_single(single)
        if failure == "away":
            raise DatabaseUnavailable("away")
        if failure == "lost after":
            await self._db.write_single(single)
            raise CommitUnknown("lost after the statement")
        if failure == "lost before":
            raise CommitUnknown("lost before the statement")
        raise IntegrityViolation("refused")


@on_each_database
class PlainTest(DatabaseTestCase):
    async def prepare(self) -> None:
        self.url = self.database_url()
        self.db = FailingDatabase(await self.open(self.url, connections=10))
        self.rooms = RoomServices(self.db)
        self.sender = Sender(self.rooms)

    async def warm(self, *users: str, version: str = "12") -> str:
        """A room in whose head everything is known that messages of these users need."""
        room_id = await self.rooms.create(joined=[BOB], version=version)
        for user_id in users or (ALICE, BOB):
            await self.sender.send(room_id, user_id)
        self.rooms.ways.clear()
        return room_id

    def assert_linear(self, log: list[EventRow], version: str = "12") -> None:
        """Every event has the one before it as its only parent, one deeper; it is rightly signed,
        counted, and the only one of its transaction."""
        rules = ROOM_VERSIONS[version]
        key = signing.KnownKey(KEY.verify_key, 2**53)
        for before, after in itertools.pairwise(log):
            pdu = json.loads(after.json)
            self.assertEqual(pdu["prev_events"], [before.event_id])
            self.assertEqual(after.depth, before.depth + 1)
            self.assertGreater(after.pos or 0, before.pos or 0)
            self.assertEqual(after.state_before, before.state_after)
            self.assertEqual(after.event_id, signing.event_id_for(pdu, rules))
            if after.redacted_by is None:
                self.assertTrue(signing.content_hash_matches(pdu, rules))
            signing.verify_event(pdu, rules, SERVER_NAME, {KEY.key_id: key}, 2**50)
            self.assertEqual(
                (after.notify_total, after.highlight_total),
                (
                    before.notify_total + (after.notify > 0),
                    before.highlight_total + (after.notify > 1),
                ),
            )
        made = [
            (row.sender, row.txn_device, row.txn_scope, row.txn_id) for row in log if row.txn_id
        ]
        self.assertEqual(len(made), len(set(made)))

    async def assert_head(self, room_id: str) -> None:
        """The room's row goes with its log."""
        last = (await self.rooms.log(room_id))[-1]
        row = await self.rooms.room(room_id)
        self.assertEqual(
            (row.extremities, row.depth, row.last_pos, row.notify_total, row.highlight_total),
            ((last.event_id,), last.depth, last.pos, last.notify_total, last.highlight_total),
        )

    # The way

    async def test_messages_to_known_rooms(self) -> None:
        rooms = [await self.warm(), await self.warm()]
        ids = await together(
            *(self.sender.send(room, user) for room in rooms for user in (ALICE, BOB) * 5)
        )
        self.assertEqual(len(set(ids)), 20)
        self.assertEqual(self.rooms.ways, {"plain": 20})
        for room in rooms:
            self.assert_linear(await self.rooms.log(room))
            await self.assert_head(room)

    async def test_what_a_batch_asks_of_the_database(self) -> None:
        """One statement for any number of messages and rooms, sent alone on PostgreSQL: no BEGIN
        and no COMMIT beside it. SQLite has no way to the database that could be saved."""
        timings: list[Timing] = []
        self.rooms = RoomServices(await self.open(self.url, observe=timings.append))
        self.sender = Sender(self.rooms)
        rooms = [await self.warm() for _ in range(3)]
        await self.settled(self.rooms.db)
        timings.clear()
        self.rooms.groups.clear()
        for count in (1, 20):
            await together(*(self.sender.send(room) for room in rooms for _ in range(count)))
        # The first goes at once, the others together.
        self.assertEqual(self.rooms.groups, [1, 2, 60])
        await self.settled(self.rooms.db)
        most = 1 if self.kind == "postgres" else 5
        asked = [(each.kind, each.statements <= most) for each in timings]
        self.assertEqual(asked, [("single", True)] * 3)

    async def test_what_needs_more_goes_the_general_way(self) -> None:
        room_id = await self.warm()
        first = await self.sender.send(room_id)
        for content in (
            {"m.relates_to": {"event_id": first, "rel_type": "m.thread"}},
            {"m.mentions": {"user_ids": [BOB]}},
        ):
            self.rooms.ways.clear()
            await self.sender.send(room_id, content=content)
            self.assertEqual(self.rooms.ways, {"general": 1})
        self.rooms.ways.clear()
        await self.rooms.say(room_id)  # without a transaction
        await self.rooms.set_state(room_id, ALICE, "m.room.topic", {"topic": "x"})
        await self.rooms.redact(room_id, ALICE, first)
        self.assertEqual(self.rooms.ways, {"general": 3})

    async def test_a_room_of_a_policy_server(self) -> None:
        room_id = await self.warm()
        content = {"via": SERVER_NAME, "public_keys": {"ed25519": "x"}}
        await self.rooms.set_state(room_id, ALICE, "m.room.policy", content)
        self.rooms.ways.clear()
        await together(self.sender.send(room_id))
        self.assertEqual(self.rooms.ways["plain"], 0)

    async def test_what_comes_after_in_a_room_stays_after(self) -> None:
        room_id, other = await self.warm(), await self.warm()
        outcomes = await together(
            self.sender.send(room_id, content={"n": 0}),
            self.sender.send(room_id, content={"n": 1}),
            self.rooms.set_state(room_id, ALICE, "m.room.topic", {"topic": "x"}),
            self.sender.send(room_id, content={"n": 2}),
            self.sender.send(other, content={"n": 3}),
        )
        log = await self.rooms.log(room_id)
        self.assertEqual([row.event_id for row in log[-4:]], outcomes[:4])
        self.assert_linear(log)

    async def test_refusals_are_by_the_newest_state(self) -> None:
        room_id = await self.warm()
        other = RoomServices(await self.open(self.url))
        levels = {"users": {}, "events_default": 50}
        await other.set_state(room_id, ALICE, "m.room.power_levels", levels)
        # What is in memory would allow it.
        with self.assertRaises(MatrixError):
            await self.sender.send(room_id, BOB)
        await other.set_state(
            room_id, ALICE, "m.room.power_levels", {**levels, "events_default": 0}
        )
        # And now it would not.
        await self.sender.send(room_id, BOB)
        self.assert_linear(await self.rooms.log(room_id))

    # Failures

    async def test_a_statement_of_which_nobody_knows_the_end(self) -> None:
        for failure in ("lost after", "lost before", "refused"):
            room_id = await self.warm()
            self.db.failures.append(failure)
            ids = await together(*(self.sender.send(room_id, txn_id=f"{n}") for n in range(3)))
            self.assertEqual(self.db.failures, [])
            log = await self.rooms.log(room_id)
            self.assertEqual([row.event_id for row in log[-3:]], ids)
            self.assertEqual(len(log), len({row.event_id for row in log}))
            self.assert_linear(log)
            await self.assert_head(room_id)
            again = await together(*(self.sender.send(room_id, txn_id=f"{n}") for n in range(3)))
            self.assertEqual(again, ids)

    async def test_an_attempt_that_was_committed_after_all_is_the_answer(self) -> None:
        """Also for what has no transaction that it could be known by."""
        room_id = await self.warm()
        event_id = await self.sender.send(room_id)
        template = EventTemplate("m.room.message", ALICE, {"body": "x"})
        job = self.rooms.appender._job(AppendRequest(room_id, [template]))
        job.perhaps = event_id
        waiter: Deferred[Any] = Deferred()
        await self.rooms.appender._commit_general([(job, waiter)])
        self.assertEqual((await waiter).event_ids, (event_id,))
        self.assertEqual((await self.rooms.log(room_id))[-1].event_id, event_id)

    async def test_an_unreachable_database(self) -> None:
        room_id = await self.warm()
        self.db.failures.append("away")
        outcomes = await together(
            *(self.sender.send(room_id) for _ in range(2)), self.rooms.say(room_id)
        )
        self.assertIsInstance(outcomes[0], DatabaseUnavailable)
        await self.sender.send(room_id)
        self.assert_linear(await self.rooms.log(room_id))

    async def test_repeated_transactions(self) -> None:
        """At once, later, in another process, and after a start."""
        room_id = await self.warm()
        other = Sender(RoomServices(await self.open(self.url)))
        await other.send(room_id, BOB)
        await other.send(room_id, ALICE, txn_id="before")
        ids = await together(
            *(each.send(room_id, txn_id="same") for each in (self.sender, other) for _ in range(4))
        )
        self.assertEqual(len(set(ids)), 1)
        for each in (self.sender, other):
            self.assertEqual(await each.send(room_id, txn_id="same"), ids[0])
        self.rooms.appender._sent.clear()
        await self.sender.send(room_id)
        self.assertEqual(await self.sender.send(room_id, txn_id="same"), ids[0])
        self.assert_linear(await self.rooms.log(room_id))

    async def test_a_redaction_that_waits_for_a_message_is_seen_to(self) -> None:
        """Nobody can know the ID of a message before, but if somebody did, it would be redacted."""
        room_id = await self.warm()
        redaction = await self.rooms.redact(room_id, ALICE, "$unknown")
        await self.sender.send(room_id)
        # Whichever way it goes, a message gets the same ID then.
        self.patch(self.rooms.appender, "_clock", Clock())
        original = self.db._db.write_single

        async def hold_first(single: Any) -> Any:
            await self.db.write(events.hold_redaction, single.rows[0].event_id, redaction)
            return await original(single)

        self.patch(self.db._db, "write_single", hold_first)
        self.rooms.ways.clear()
        event_id = await self.sender.send(room_id)
        self.assertEqual(self.rooms.ways, {"missed": 1, "general": 1})
        self.assertEqual((await self.rooms.log(room_id))[-1].event_id, event_id)

    # Several processes

    async def test_many_processes_in_one_hot_room(self) -> None:
        """Shows EVT-10, and SND-1."""
        self.patch(append, "SHARED_FOR", 0.0)  # all of them try the short way each time
        hot, calm = await self.warm(), await self.warm()
        senders = [Sender(RoomServices(await self.open(self.url)), f"D{n}") for n in range(4)]
        for each in senders:
            await each.send(hot)
            await each.send(calm)
        began = await self.db.read(clock.position)
        before = await self.rooms.log(hot)
        outcomes: list[Any] = []
        for n in range(30):
            calls = []
            for each in senders:
                user, content = (ALICE, BOB)[n % 2], {"n": n}
                calls += [each.send(hot, user, content, txn_id=f"hot{n}") for _ in range(1 + n % 2)]
                if n % 5 == 0:
                    calls.append(each.send(calm, content=content, txn_id=f"calm{n}"))
                if n % 10 == 0:
                    topic = {"topic": f"{n}"}
                    calls.append(each.services.set_state(hot, ALICE, "m.room.topic", topic))
            outcomes += await together(*calls)
            # The second of these has its head in memory, with nobody else about.
            outcomes += [await senders[n % 4].send(hot) for _ in range(2)]
        self.assertEqual([each for each in outcomes if isinstance(each, Exception)], [])
        log, quiet = await self.rooms.log(hot), await self.rooms.log(calm)
        self.assertEqual(len(log) - len(before), 4 * (30 + 3) + 2 * 30)
        for room_id, rows in ((hot, log), (calm, quiet)):
            self.assert_linear(rows)
            await self.assert_head(room_id)
        # What was acknowledged is there, and no position is missing or used twice.
        stored = {row.event_id for row in log + quiet}
        self.assertLessEqual(set(outcomes), stored)
        positions = sorted(row.pos or 0 for row in log + quiet if (row.pos or 0) > began)
        ended = await self.db.read(clock.position)
        self.assertEqual(positions, list(range(began + 1, ended + 1)))
        ways = sum((each.services.ways for each in senders), self.rooms.ways)
        self.assertGreater(ways["plain"], 0)
        self.assertGreater(ways["missed"], 0)

    async def test_a_room_of_several_processes_is_left_to_the_general_way(self) -> None:
        room_id = await self.warm()
        other = Sender(RoomServices(await self.open(self.url)), "OTHER")
        await other.send(room_id)
        self.rooms.ways.clear()
        for _ in range(3):
            await self.sender.send(room_id)
        self.assertEqual(self.rooms.ways, {"missed": 1, "general": 3})
        self.rooms.appender._shared.clear()  # some time later
        await self.sender.send(room_id)
        self.assertEqual(self.rooms.ways["plain"], 1)


class Script:
    """The same random requests to two rooms, of which one never takes the short way."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def requests(self, count: int) -> list[tuple[str, str, dict[str, Any], str | None]]:
        """Sender, type, content, state key."""
        return [self._request() for _ in range(count)]

    def _request(self) -> tuple[str, str, dict[str, Any], str | None]:
        r = self.random
        sender = r.choice([ALICE, ALICE, BOB, CAROL])
        if r.random() < 0.06:
            kind = r.choice(["topic", "levels", "join", "leave"])
            if kind == "topic":
                return sender, "m.room.topic", {"topic": f"{r.random()}"}, ""
            if kind == "levels":
                return ALICE, "m.room.power_levels", {"events_default": r.choice([0, 0, 50])}, ""
            membership = {"membership": kind, "displayname": "Carol"}
            return CAROL, "m.room.member", membership, CAROL
        kind = r.choice(["m.room.message"] * 5 + ["m.room.encrypted", "m.reaction", "io.ü"])
        if r.random() < 0.03:
            kind = "x\x1ey"
        content: dict[str, Any] = {"msgtype": r.choice(["m.text", "m.notice"]), "body": "hello"}
        extras: list[dict[str, Any]] = [
            *[{}] * 10,
            {"body": "a'b\\\"c\x1e\u2028🐘%s{},?"},
            {"body": "x" * r.choice([100, 60_000, 70_000])},
            {"url": "mxc://x/y"},
            {"number": r.choice([1, 2**53 - 1, 2**53, -(2**60), 1.5, 1e300, True, None])},
            {"m.mentions": r.choice([{}, {"room": True}, {"user_ids": [BOB]}, 5])},
            {"m.relates_to": r.choice([{"event_id": "$x", "rel_type": "m.thread"}, 5])},
            {"deep": [[[{"a": [{}] * 3}]]]},
        ]
        extra = r.choice(extras)
        return sender, kind, {**content, **extra}, None


@on_each_database
class EqualTest(DatabaseTestCase):
    async def test_both_ways_write_the_same(self) -> None:
        """Shows SND-1."""
        plain = 0
        for seed, version in enumerate(VERSIONS):
            short = RoomServices(await self.open(connections=10))
            general = RoomServices(await self.open())
            self.patch(general.appender, "_is_shared", lambda room_id: True)
            found = [await self.run_script(each, seed, version) for each in (short, general)]
            self.assertEqual(found[0], found[1], f"version {version}")
            self.assertEqual(general.ways["plain"], 0)
            plain += short.ways["plain"]
        self.assertGreater(plain, 80)

    async def run_script(self, services: RoomServices, seed: int, version: str) -> Any:
        """What the requests came to, and what is stored."""
        script = Script(seed)
        room_id = await services.create(joined=[BOB, CAROL], version=version)
        outcomes: list[Any] = []
        for turn in range(25):
            calls = [
                services.append(
                    room_id,
                    [EventTemplate(kind, sender, content, key)],
                    transaction=TransactionKey("", f"send/{kind}", f"{turn}.{n}"),
                )
                for n, (sender, kind, content, key) in enumerate(script.requests(4))
            ]
            for outcome in await together(*calls):
                if isinstance(outcome, MatrixError):
                    outcomes.append((outcome.status, outcome.errcode, outcome.error))
                else:
                    outcomes.append(type(outcome))
        rows = await services.log(room_id)
        marks = await services.db.read(_marks)
        head = await services.room(room_id)
        names = {row.event_id: n for n, row in enumerate(rows)}
        return (
            outcomes,
            [self.comparable(row, names, version) for row in rows],
            head._replace(room_id="", extremities=(), state_root=None, created_ts=0, last_pos=0),
            marks,
        )

    def comparable(self, row: EventRow, names: dict[str, int], version: str) -> Any:
        """An event without what time and chance decide."""
        event = Event.from_json(row.json, ROOM_VERSIONS[version], row.event_id)
        pdu = dict(event.pdu)
        for name in ("hashes", "signatures", "origin_server_ts", "room_id"):
            pdu.pop(name, None)
        pdu["prev_events"] = [names[name] for name in event.prev_event_ids]
        pdu["auth_events"] = [names[name] for name in event.auth_event_ids]
        replaced = names[row.replaces_state] if row.replaces_state else None
        stored = row._replace(
            event_id="",
            json="",
            origin_server_ts=0,
            state_before=None,
            state_after=None,
            event_nid=0,
            replaces_state=None,
        )
        return stored, pdu, replaced


def _marks(txn: Transaction) -> Any:
    return txn.all("SELECT user_id, thread_root, notify, highlight FROM notify_marks ORDER BY pos")
