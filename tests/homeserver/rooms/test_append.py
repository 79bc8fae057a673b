"""The append path, on both databases."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from homeserver.core import errors, signing
from homeserver.core.auth_rules import auth_types
from homeserver.core.errors import MatrixError
from homeserver.core.redaction import redact
from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.rooms.build import EventTemplate
from homeserver.rooms.requests import AppendRequest, StateView
from storage import memberships, state
from storage.database import Database
from storage.errors import CommitUnknown, DatabaseUnavailable
from storage.events import EventRow, TransactionKey
from storage.transaction import Transaction
from tests.support.concurrent import together
from tests.support.databases import DatabaseTestCase, on_each_database
from tests.support.rooms import ALICE, BOB, CAROL, KEY, SERVER_NAME, RoomServices


def message(sender: str = ALICE, body: str = "hello") -> EventTemplate:
    return EventTemplate("m.room.message", sender, {"msgtype": "m.text", "body": body})


def topic(sender: str = ALICE, text: str = "topic") -> EventTemplate:
    return EventTemplate("m.room.topic", sender, {"topic": text}, "")


class FlakyDatabase:
    """A database whose next writes fail as told: before the commit, after it, or for good."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.failures: list[str] = []
        self.writes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)

    async def write(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        self.writes += 1
        failure = self.failures.pop(0) if self.failures else None
        if failure is None:
            return await self._db.write(fn, *args, **kwargs)
        if failure == "away":
            await self._db.position(fresh=True)
            raise DatabaseUnavailable("away")
        if failure == "lost after":
            await self._db.write(fn, *args, **kwargs)
            raise CommitUnknown("lost after the commit")

        def rolled_back(txn: Transaction) -> Any:
            fn(txn, *args, **kwargs)
            if failure == "rolled back":
                raise RuntimeError("rolled back")
            raise CommitUnknown("lost before the commit")

        return await self._db.write(rolled_back)


@on_each_database
class AppendTest(DatabaseTestCase):
    async def prepare(self) -> None:
        self.url = self.database_url()
        self.db = FlakyDatabase(await self.open(self.url))
        self.rooms = RoomServices(self.db)

    async def other_process(self) -> RoomServices:
        """The services of another process on the same database."""
        return RoomServices(await self.open(self.url))

    def assert_linear(self, log: Sequence[EventRow]) -> None:
        """Every event has the one before it as its only parent, one deeper, and positions grow."""
        version = ROOM_VERSIONS["12"]
        for before, after in itertools.pairwise(log):
            pdu = json.loads(after.json)
            self.assertEqual(pdu["prev_events"], [before.event_id])
            self.assertEqual(after.depth, before.depth + 1)
            self.assertGreater(after.pos or 0, before.pos or 0)
            self.assertEqual(after.state_before, before.state_after)
            self.assertEqual(after.event_id, signing.event_id_for(pdu, version))

    # Groups

    async def test_requests_that_arrive_during_a_commit_share_the_next(self) -> None:
        room_id = await self.rooms.create()
        other = await self.rooms.create()
        await self.rooms.log(room_id)
        self.rooms.groups.clear()
        before = self.db.writes
        ids = await together(
            *(self.rooms.say(room, body=str(n)) for n in range(20) for room in (room_id, other))
        )
        self.assertEqual(self.rooms.groups, [1, 39])
        self.assertEqual(self.db.writes - before, 2)
        self.assertEqual(len(set(ids)), 40)
        log = await self.rooms.log(room_id)
        self.assert_linear(log)
        # In the order of asking.
        bodies = [json.loads(row.json)["content"].get("body") for row in log]
        self.assertEqual(bodies[-20:], [str(n) for n in range(20)])

    async def test_a_refused_request_fails_alone(self) -> None:
        """Shows AUTH-2."""
        room_id = await self.rooms.create(joined=[BOB])
        first, refused, second = await together(
            self.rooms.say(room_id, BOB),
            self.rooms.append(room_id, [topic(BOB)]),
            self.rooms.say(room_id, BOB),
        )
        self.assertIsInstance(refused, MatrixError)
        self.assertEqual((refused.status, refused.errcode), (403, "M_FORBIDDEN"))
        log = await self.rooms.log(room_id)
        self.assertEqual([row.event_id for row in log[-2:]], [first, second])
        self.assert_linear(log)

    async def test_a_request_is_added_whole_or_not_at_all(self) -> None:
        room_id = await self.rooms.create(joined=[BOB])
        before = await self.rooms.log(room_id)
        head = await self.rooms.room(room_id)
        with self.assertRaises(MatrixError):
            await self.rooms.append(room_id, [message(BOB), message(BOB), topic(BOB)])
        self.assertEqual(await self.rooms.log(room_id), before)
        self.assertEqual(await self.rooms.room(room_id), head)
        # And in one group with one that is fine, which builds on what was before.
        _, kept = await together(
            self.rooms.append(room_id, [message(BOB), topic(BOB)]), self.rooms.say(room_id)
        )
        log = await self.rooms.log(room_id)
        self.assertEqual([row.event_id for row in log], [*(r.event_id for r in before), kept])
        self.assert_linear(log)

    async def test_state_that_a_refused_request_had_set_is_gone(self) -> None:
        """Shows AUTH-2."""
        room_id = await self.rooms.create(joined=[BOB])

        async def grant_and_fail() -> None:
            levels = await self.levels(room_id, {BOB: 100})
            await self.rooms.append(
                room_id,
                [
                    EventTemplate("m.room.power_levels", ALICE, levels, ""),
                    EventTemplate("m.room.create", ALICE, {}, ""),
                ],
            )

        async def use() -> None:
            await self.rooms.append(room_id, [topic(BOB)])

        for outcome in await together(grant_and_fail(), use()):
            self.assertIsInstance(outcome, MatrixError)

    async def levels(self, room_id: str, users: dict[str, int]) -> dict[str, Any]:
        def read(txn: Transaction) -> str:
            row = self.rooms.view(txn, room_id, ALICE).room
            key = ("m.room.power_levels", "")
            return state.current(txn, row.room_nid, [key])[key].json

        content: dict[str, Any] = json.loads(await self.db.read(read))["content"]
        return {**content, "users": {**content["users"], **users}}

    async def test_what_within_wrote_goes_with_its_refusal(self) -> None:
        room_id = await self.rooms.create()

        def write(name: str) -> Callable[[Transaction, int, str], None]:
            def within(txn: Transaction, room_nid: int, _: str) -> None:
                txn.execute("INSERT INTO counters (name, value) VALUES (?, 1)", (name,))
                if name == "refused":
                    raise errors.forbidden()

            return within

        outcomes = await together(
            *(
                self.rooms.append(room_id, [message()], within=write(name))
                for name in ("one", "refused", "two")
            )
        )
        self.assertIsInstance(outcomes[1], MatrixError)
        names = await self.db.read(
            lambda txn: [
                row[0]
                for row in txn.all(
                    "SELECT name FROM counters WHERE name IN ('one', 'refused', 'two')"
                    " ORDER BY name"
                )
            ]
        )
        self.assertEqual(names, ["one", "two"])

    async def test_templates_are_decided_on_the_newest_state(self) -> None:
        room_id = await self.rooms.create()

        def next_topic(view: StateView) -> list[EventTemplate]:
            current = view.get("m.room.topic")
            number = int(current.content["topic"]) if current is not None else 0
            return [topic(text=str(number + 1))]

        await together(*(self.rooms.append(room_id, next_topic) for _ in range(10)))
        row = (await self.rooms.log(room_id))[-1]
        self.assertEqual(json.loads(row.json)["content"], {"topic": "10"})

    # Transactions

    async def test_simultaneous_repetitions_make_one_event(self) -> None:
        """Shows SND-1."""
        room_id = await self.rooms.create()
        other = await self.other_process()
        key = TransactionKey("DEVICE", "send/m.room.message", "t1")
        ids = await together(
            *(
                services.send(room_id, ALICE, {"body": "once"}, transaction=key)
                for services in (self.rooms, other)
                for _ in range(5)
            )
        )
        self.assertEqual(len(set(ids)), 1)
        bodies = [json.loads(r.json)["content"] for r in await self.rooms.log(room_id)]
        self.assertEqual(bodies.count({"body": "once"}), 1)
        again = await self.rooms.send(room_id, ALICE, {"body": "once"}, transaction=key)
        self.assertEqual(again, ids[0])

    async def test_transactions_are_those_of_a_device_path_room_and_sender(self) -> None:
        """Shows SND-1."""
        room_id = await self.rooms.create(joined=[BOB])
        other_room = await self.rooms.create()
        base = TransactionKey("DEVICE", "send/m.room.message", "t1")
        ids = [
            await self.rooms.send(room, sender, {"body": "x"}, transaction=key)
            for room, sender, key in (
                (room_id, ALICE, base),
                (other_room, ALICE, base),
                (room_id, BOB, base),
                (room_id, ALICE, base._replace(device="OTHER")),
                (room_id, ALICE, base._replace(scope="send/other")),
                (room_id, ALICE, base._replace(txn_id="t2")),
            )
        ]
        self.assertEqual(len(set(ids)), 6)

    async def test_a_repetition_of_a_refused_request_is_tried_again(self) -> None:
        room_id = await self.rooms.create()
        key = TransactionKey("DEVICE", "send/m.room.message", "t1")
        with self.assertRaises(MatrixError):
            await self.rooms.send(room_id, BOB, {"body": "x"}, transaction=key)
        await self.join(room_id, BOB)
        event_id = await self.rooms.send(room_id, BOB, {"body": "x"}, transaction=key)
        self.assertEqual((await self.rooms.row(event_id)).sender, BOB)

    async def join(self, room_id: str, user_id: str) -> None:
        content = {"membership": "join"}
        await self.rooms.set_state(room_id, user_id, "m.room.member", content, user_id)

    async def test_equal_state_is_not_added_again(self) -> None:
        """Shows SND-3."""
        room_id = await self.rooms.create(joined=[BOB])
        first = await self.rooms.append(room_id, [topic(text="1")], idempotent=True)
        again = await self.rooms.append(room_id, [topic(text="1")], idempotent=True)
        self.assertEqual(again.event_ids, first.event_ids)
        self.assertEqual(again.pos, 0)
        changed = await self.rooms.append(room_id, [topic(text="2")], idempotent=True)
        self.assertNotEqual(changed.event_ids, first.event_ids)
        # Back to the first text: that is a change.
        back = await self.rooms.append(room_id, [topic(text="1")], idempotent=True)
        self.assertNotEqual(back.event_ids, first.event_ids)

    async def test_state_is_equal_if_its_json_is(self) -> None:
        """Shows SND-3."""
        room_id = await self.rooms.create()

        def custom(value: object) -> list[EventTemplate]:
            return [EventTemplate("custom", ALICE, {"value": value}, "")]

        one = await self.rooms.append(room_id, custom(1), idempotent=True)
        true = await self.rooms.append(room_id, custom(True), idempotent=True)
        self.assertNotEqual(one.event_ids, true.event_ids)

    # Several processes

    async def test_two_processes_never_fork_a_room(self) -> None:
        """Shows EVT-10."""
        room_id = await self.rooms.create()
        other = await self.other_process()
        await together(
            *(
                services.say(room_id, body=f"{n}")
                for n in range(15)
                for services in (self.rooms, other)
            )
        )
        log = await self.rooms.log(room_id)
        self.assertEqual(len(log), 36)
        self.assert_linear(log)
        head = await self.rooms.room(room_id)
        self.assertEqual(head.extremities, (log[-1].event_id,))
        self.assertEqual(head.depth, log[-1].depth)

    async def test_two_processes_make_the_same_room_at_once(self) -> None:
        """The ID of a room is the hash of its first event, which may be the same in both."""
        services = (self.rooms, await self.other_process())
        for each in services:
            self.patch(each.appender, "_clock", Clock())
        made = []
        for _ in range(20):
            made += await together(*(each.create() for each in services))
        self.assertEqual([room for room in made if isinstance(room, Exception)], [])
        self.assertEqual(len(set(made)), 40)
        for room_id in made:
            self.assert_linear(await self.rooms.log(room_id))

    async def test_a_cached_head_yields_to_what_another_process_wrote(self) -> None:
        """Shows AUTH-2."""
        room_id = await self.rooms.create(joined=[BOB])
        await self.rooms.say(room_id, BOB)
        other = await self.other_process()
        content = {"membership": "ban"}
        await other.set_state(room_id, ALICE, "m.room.member", content, BOB)
        with self.assertRaises(MatrixError) as caught:
            await self.rooms.say(room_id, BOB)
        self.assertEqual(caught.exception.errcode, "M_FORBIDDEN")
        await other.set_state(room_id, ALICE, "m.room.member", {"membership": "leave"}, BOB)
        await self.join(room_id, BOB)
        await self.rooms.say(room_id, BOB)
        self.assert_linear(await self.rooms.log(room_id))

    # What goes wrong

    async def test_a_commit_that_was_lost_is_done_again(self) -> None:
        room_id = await self.rooms.create()
        await self.rooms.say(room_id)
        self.db.failures = ["lost before"]
        event_id = await self.rooms.say(room_id, body="mine")
        log = await self.rooms.log(room_id)
        self.assertEqual(log[-1].event_id, event_id)
        self.assertEqual([json.loads(r.json)["content"].get("body") for r in log].count("mine"), 1)
        self.assert_linear(log)

    async def test_a_commit_that_happened_is_not_done_twice(self) -> None:
        room_id = await self.rooms.create()
        self.db.failures = ["lost after"]
        event_id = await self.rooms.say(room_id, body="mine")
        await self.rooms.say(room_id)
        log = await self.rooms.log(room_id)
        self.assertEqual(log[-2].event_id, event_id)
        self.assertEqual([json.loads(r.json)["content"].get("body") for r in log].count("mine"), 1)
        self.assert_linear(log)

    async def test_state_set_by_a_lost_commit_is_forgotten(self) -> None:
        room_id = await self.rooms.create(joined=[BOB])
        self.db.failures = ["lost before", "rolled back"]
        levels = await self.levels(room_id, {BOB: 100})
        (outcome,) = await together(
            self.rooms.set_state(room_id, ALICE, "m.room.power_levels", levels)
        )
        self.assertIsInstance(outcome, RuntimeError)
        with self.assertRaises(MatrixError):
            await self.rooms.append(room_id, [topic(BOB)])

    async def test_new_state_keys_of_a_lost_commit_are_numbered_again(self) -> None:
        room_id = await self.rooms.create()
        other = await self.rooms.create()
        # The second of two requests reads the numbers that the first one made.
        self.db.failures = ["rolled back"] * 4
        outcomes = await together(
            self.rooms.say(room_id),
            self.rooms.set_state(room_id, ALICE, "custom", {"n": 1}, "key"),
            self.rooms.set_state(other, ALICE, "custom", {"n": 2}, "key"),
        )
        for outcome in outcomes:
            self.assertIsInstance(outcome, RuntimeError)
        event_id = await self.rooms.set_state(room_id, ALICE, "custom", {"n": 3}, "key")
        root = (await self.rooms.room(room_id)).state_root
        assert root is not None

        def read(txn: Transaction) -> dict[Any, EventRow]:
            # With an empty cache, as another process has it.
            return RoomServices(self.db).view(txn, room_id, ALICE).state_at(root)

        found = await self.db.read(read)
        self.assertEqual(found[("custom", "key")].event_id, event_id)

    async def test_one_request_that_cannot_be_committed_does_not_take_the_others(self) -> None:
        room_id = await self.rooms.create()

        def explode(txn: Transaction, room_nid: int, _: str) -> None:
            raise RuntimeError("a bug")

        with_bug = self.rooms.append(room_id, [message()], within=explode)
        first, failed, second = await together(
            self.rooms.say(room_id), with_bug, self.rooms.say(room_id)
        )
        self.assertIsInstance(failed, RuntimeError)
        log = await self.rooms.log(room_id)
        self.assertEqual([row.event_id for row in log[-2:]], [first, second])
        self.assert_linear(log)

    async def test_an_unreachable_database_fails_everybody_at_once(self) -> None:
        room_id = await self.rooms.create()
        await self.rooms.log(room_id)
        self.db.failures = ["away", "away"]
        before = self.db.writes
        outcomes = await together(*(self.rooms.say(room_id) for _ in range(10)))
        for outcome in outcomes:
            self.assertIsInstance(outcome, DatabaseUnavailable)
        self.assertEqual(self.db.writes - before, 2)
        await self.rooms.say(room_id)
        self.assert_linear(await self.rooms.log(room_id))

    async def test_a_client_that_went_away_does_not_stop_its_event(self) -> None:
        room_id = await self.rooms.create()
        call = Deferred.fromCoroutine(self.rooms.say(room_id, body="gone"))
        call.addErrback(lambda _: None)
        call.cancel()
        await self.rooms.appender.drained()
        row = (await self.rooms.log(room_id))[-1]
        self.assertEqual(json.loads(row.json)["content"]["body"], "gone")

    async def test_drained_waits_for_everything_that_was_asked(self) -> None:
        room_id = await self.rooms.create()
        before = len(await self.rooms.log(room_id))
        calls = together(*(self.rooms.say(room_id) for _ in range(10)))
        await self.rooms.appender.drained()
        self.assertEqual(len(await self.rooms.log(room_id)), before + 10)
        await calls

    async def test_no_room_no_event(self) -> None:
        """Shows SND-12."""
        with self.assertRaises(MatrixError) as caught:
            await self.rooms.say("!unknown:hearth.test")
        self.assertEqual(caught.exception.status, 403)

    # What is written

    async def test_hints_after_the_commit(self) -> None:
        room_id = await self.rooms.create()
        heard: list[tuple[tuple[str, ...], int]] = []
        self.db.on_commit(lambda channels, pos: heard.append((channels, pos)))
        row = await self.rooms.room(room_id)
        done = await self.rooms.append(room_id, [message()])
        self.assertEqual(heard, [((f"room:{row.room_nid}",), done.pos)])
        await self.join(room_id, BOB)
        self.assertEqual(set(heard[1][0]), {f"room:{row.room_nid}", f"user:{BOB}"})

    async def test_written_events_are_told(self) -> None:
        room_id = await self.rooms.create()
        told: list[Any] = []
        self.rooms.appender.on_written.append(told.append)
        done = await self.rooms.append(room_id, [topic(text="1"), topic(text="2")])
        (room,) = told
        self.assertEqual(room.room_id, room_id)
        self.assertEqual([e.event.event_id for e in room.entries], list(done.event_ids))
        self.assertEqual([e.pos for e in room.entries], [done.pos - 1, done.pos])
        self.assertEqual(room.entries[1].replaces.event_id, done.event_ids[0])

    async def test_every_version(self) -> None:
        """Shows EVT-1, EVT-4, EVT-10, EVT-11."""
        for identifier, version in ROOM_VERSIONS.items():
            room_id = await self.rooms.create(version=identifier, joined=[BOB])
            await self.rooms.say(room_id, BOB)
            gone = await self.rooms.say(room_id, BOB, "to be redacted")
            await self.rooms.set_state(room_id, ALICE, "m.room.topic", {"topic": "new"})
            await self.rooms.redact(room_id, ALICE, gone)
            log = await self.rooms.log(room_id)
            seen: dict[tuple[str, str], str] = {}
            for index, row in enumerate(log):
                event = await self.rooms.event(row.event_id)
                with self.subTest(version=identifier, type=event.type):
                    if row.event_id != gone:
                        self.assertEqual(
                            event.pdu["hashes"]["sha256"],
                            signing.encode_base64(signing.content_hash(event.pdu, version)),
                        )
                    self.assertEqual(signing.event_id_for(event.pdu, version), row.event_id)
                    redacted = redact(event.pdu, version)
                    signing.verify_json(redacted, SERVER_NAME, KEY.key_id, KEY.verify_key)
                    self.assertEqual(
                        list(event.prev_event_ids), [log[index - 1].event_id] if index else []
                    )
                    self.assertEqual(event.depth, index + 1)
                    wanted = auth_types(
                        event.type, event.sender, event.state_key, event.content, version
                    )
                    self.assertEqual(
                        set(event.auth_event_ids), {seen[key] for key in wanted if key in seen}
                    )
                    if event.is_state:
                        seen[event.key] = event.event_id
            self.assertNotIn("body", json.loads((await self.rooms.row(gone)).json)["content"])

    async def test_states_before_and_after_events(self) -> None:
        room_id = await self.rooms.create(joined=[BOB, CAROL])
        await self.rooms.append(room_id, [topic(text="1"), message(), topic(text="2")])
        log = await self.rooms.log(room_id)

        def contents(txn: Transaction) -> list[tuple[dict[Any, str], dict[Any, str]]]:
            view = RoomServices(self.db).view(txn, room_id, ALICE)
            found = []
            for row in log:
                assert row.state_before is not None and row.state_after is not None
                found.append(
                    tuple(
                        {key: state.event_id for key, state in view.state_at(root).items()}
                        for root in (row.state_before, row.state_after)
                    )
                )
            return found  # type: ignore[return-value]

        expected: dict[tuple[str, str], str] = {}
        for row, (before, after) in zip(log, await self.db.read(contents), strict=True):
            self.assertEqual(before, expected)
            if row.state_key is not None:
                replaced = expected.get((row.type, row.state_key))
                self.assertEqual(row.replaces_state, replaced)
                expected[(row.type, row.state_key)] = row.event_id
            self.assertEqual(after, expected)
        head = await self.rooms.room(room_id)
        self.assertEqual(head.state_root, log[-1].state_after)
        current = await self.db.read(state.current, head.room_nid)
        self.assertEqual({key: row.event_id for key, row in current.items()}, expected)
        roots = await self.db.read(
            lambda txn: [state.root_at(txn, head.room_nid, row.pos or 0) for row in log]
        )
        self.assertEqual(roots, [row.state_after for row in log])

    async def test_memberships_and_their_log(self) -> None:
        room_id = await self.rooms.create()
        row = await self.rooms.room(room_id)
        start = row.last_pos
        for membership, sender in (
            ("invite", ALICE),
            ("join", BOB),
            ("leave", BOB),
            ("ban", ALICE),
        ):
            content = {"membership": membership, "displayname": "B\x00b"}
            await self.rooms.set_state(room_id, sender, "m.room.member", content, BOB)
        member = await self.db.read(memberships.get, row.room_nid, BOB)
        assert member is not None
        self.assertEqual((member.membership, member.sender), ("ban", ALICE))
        self.assertEqual(member.displayname, "B\ufffdb")
        changes = await self.db.read(memberships.changes_of_room, row.room_nid, start, 2**62)
        self.assertEqual(
            [(c.user_id, c.previous, c.membership) for c in changes],
            [
                (BOB, "leave", "invite"),
                (BOB, "invite", "join"),
                (BOB, "join", "leave"),
                (BOB, "leave", "ban"),
            ],
        )
        self.assertEqual(
            await self.db.read(memberships.last_stay, row.room_nid, BOB),
            (changes[1].pos, changes[2].pos),
        )

    async def test_several_memberships_of_one_user_in_one_request(self) -> None:
        room_id = await self.rooms.create()
        row = await self.rooms.room(room_id)
        start = row.last_pos
        await self.rooms.append(
            room_id,
            [
                EventTemplate("m.room.member", BOB, {"membership": "join"}, BOB),
                EventTemplate("m.room.member", BOB, {"membership": "leave"}, BOB),
            ],
        )
        changes = await self.db.read(memberships.changes_of_room, row.room_nid, start, 2**62)
        self.assertEqual(
            [(c.previous, c.membership) for c in changes], [("leave", "join"), ("join", "leave")]
        )
        member = await self.db.read(memberships.get, row.room_nid, BOB)
        assert member is not None
        self.assertEqual(member.membership, "leave")

    async def test_a_request_with_a_transaction_has_one_event(self) -> None:
        room_id = await self.rooms.create()
        key = TransactionKey("D", "send/x", "t")
        with self.assertRaises(ValueError):
            await self.rooms.appender.append(
                AppendRequest(room_id, [message(), message()], transaction=key)
            )
