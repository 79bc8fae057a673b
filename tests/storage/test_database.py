"""Transactions through `storage.database`, on both databases."""

from __future__ import annotations

import contextvars
import threading
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, gatherResults
from twisted.trial.unittest import SynchronousTestCase

from storage import clock
from storage.bus import MemoryBus
from storage.database import Timing, backend_for
from storage.errors import Conflict, DatabaseClosed, IntegrityViolation, InvalidText
from storage.sqlite import SqliteBackend
from storage.transaction import Transaction
from tests.support.databases import DatabaseTestCase, on_each_database, reactor

_who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")


def put(txn: Transaction, name: str, value: int) -> None:
    txn.execute("INSERT INTO counters (name, value) VALUES (?, ?)", (name, value))


def put_all(txn: Transaction, rows: list[tuple[str, int]]) -> None:
    txn.many("INSERT INTO counters (name, value) VALUES (?, ?)", rows)


def add(txn: Transaction, name: str) -> int:
    value = txn.value("SELECT value FROM counters WHERE name = ?", (name,)) or 0
    txn.execute(
        "INSERT INTO counters (name, value) VALUES (?, 1)"
        " ON CONFLICT (name) DO UPDATE SET value = counters.value + 1",
        (name,),
    )
    return int(value) + 1


def get(txn: Transaction, name: str) -> Any:
    return txn.value("SELECT value FROM counters WHERE name = ?", (name,))


def names(txn: Transaction) -> list[str]:
    return [name for (name,) in txn.all("SELECT name FROM counters ORDER BY name")]


@on_each_database
class TransactionTest(DatabaseTestCase):
    async def prepare(self) -> None:
        self.db = await self.open()

    async def test_writes_are_read_back(self) -> None:
        await self.db.write(put, "a", value=5)
        self.assertEqual(await self.db.read(get, "a"), 5)
        self.assertIsNone(await self.db.read(get, "b"))
        self.assertIsNone(
            await self.db.read(lambda txn: txn.one("SELECT 1 FROM counters WHERE name = ?", ("b",)))
        )

    async def test_a_failing_function_writes_nothing(self) -> None:
        def fail(txn: Transaction) -> None:
            put(txn, "a", 1)
            txn.after_commit(lambda: called.append(1))
            raise LookupError("changed its mind")

        called: list[int] = []
        with self.assertRaises(LookupError):
            await self.db.write(fail)
        self.assertIsNone(await self.db.read(get, "a"))
        self.assertEqual(called, [])

    async def test_a_violated_constraint_is_told_and_nothing_is_written(self) -> None:
        def twice(txn: Transaction) -> None:
            put(txn, "a", 1)
            put(txn, "a", 2)

        with self.assertRaises(IntegrityViolation):
            await self.db.write(twice)
        self.assertIsNone(await self.db.read(get, "a"))
        await self.db.write(put, "a", 3)

    async def test_a_read_sees_one_snapshot(self) -> None:
        between = threading.Event()
        written = threading.Event()

        def twice(txn: Transaction) -> tuple[list[str], list[str]]:
            first = names(txn)
            between.set()
            written.wait(20)
            return first, names(txn)

        reading = ensureDeferred(self.db.read(twice))
        while not between.is_set():
            await self.db.read(names)
        await self.db.write(put, "a", 1)
        written.set()
        self.assertEqual(await reading, ([], []))
        self.assertEqual(await self.db.read(names), ["a"])

    async def test_a_read_cannot_write(self) -> None:
        with self.assertRaises(Exception) as caught:
            await self.db.read(put, "a", 1)
        self.assertRegex(str(caught.exception), "(?i)read.?only")
        await self.db.write(put, "a", 1)

    async def test_types_come_back_as_they_went(self) -> None:
        def both(txn: Transaction) -> Any:
            txn.execute(
                txn.dialect.schema(
                    "CREATE TABLE things (t TEXT, b BLOB, i BIGINT, yes BOOLEAN, no BOOLEAN)"
                )
            )
            values = ("ü 🦊 '\\ %s ?", b"\x00\xff'\\", 2**62, True, False)
            txn.execute("INSERT INTO things (t, b, i, yes, no) VALUES (?, ?, ?, ?, ?)", values)
            txn.execute("INSERT INTO things (t) VALUES (?)", (None,))
            self.assertEqual(txn.value("SELECT i FROM things WHERE yes AND NOT no"), 2**62)
            self.assertEqual(
                txn.value("SELECT i FROM things WHERE b = ?", (b"\x00\xff'\\",)), 2**62
            )
            return txn.all("SELECT t, b, i, yes, no FROM things ORDER BY i DESC")

        rows = await self.db.write(both)
        full = next(row for row in rows if row[0] is not None)
        empty = next(row for row in rows if row[0] is None)
        self.assertEqual(full[:3], ("ü 🦊 '\\ %s ?", b"\x00\xff'\\", 2**62))
        self.assertIs(type(full[1]), bytes)
        self.assertTrue(full[3])
        self.assertFalse(full[4])
        self.assertEqual(empty, (None,) * 5)

    async def test_text_sorts_by_bytes(self) -> None:
        def fill(txn: Transaction) -> None:
            for name in ("b", "A", "ä", "a", "Z", "_", "é"):
                put(txn, name, 0)

        await self.db.write(fill)
        expected = sorted(("b", "A", "ä", "a", "Z", "_", "é"), key=lambda text: text.encode())
        self.assertEqual(await self.db.read(names), expected)

    async def test_text_that_cannot_be_stored_is_refused(self) -> None:
        for text in ("a\x00b", "a\ud800b"):
            with self.assertRaises(InvalidText):
                await self.db.write(put, text, 1)
            with self.assertRaises(InvalidText):
                await self.db.read(get, text)
            with self.assertRaises(InvalidText):
                await self.db.write(put_all, [("a", 1), (text, 2)])
        self.assertEqual(await self.db.read(names), [])

    async def test_many_rows(self) -> None:
        def fill(txn: Transaction) -> None:
            sql = (
                "INSERT INTO counters (name, value) VALUES (?, ?)"
                " ON CONFLICT (name) DO UPDATE SET value = excluded.value"
            )
            txn.many(sql, [(f"n{i}", i) for i in range(2500)])
            txn.many(sql, ((f"n{i}", -i) for i in range(3)))
            txn.many(sql, [])
            txn.many("UPDATE counters SET value = ? WHERE name = ?", [(70, "n7"), (80, "n8")])
            txn.many("DELETE FROM counters WHERE name = ?", [("n9",)])

        await self.db.write(fill)
        count = await self.db.read(lambda txn: txn.value("SELECT count(*) FROM counters"))
        self.assertEqual(count, 2499)
        wanted = {"n0": 0, "n1": -1, "n2": -2, "n3": 3, "n7": 70, "n8": 80, "n9": None}
        for name, value in wanted.items():
            self.assertEqual(await self.db.read(get, name), value)

    async def test_any_of(self) -> None:
        def fill(txn: Transaction) -> None:
            txn.execute(txn.dialect.schema("CREATE TABLE blobs (b BLOB)"))
            txn.many("INSERT INTO blobs (b) VALUES (?)", [(bytes([i]),) for i in range(100)])
            txn.many(
                "INSERT INTO counters (name, value) VALUES (?, ?)",
                [(f"n'{i}", i) for i in range(200)],
            )

        def find(txn: Transaction, column: str, values: Any) -> set[int]:
            condition, args = txn.any_of(column, values)
            sql = f"SELECT value FROM counters WHERE {condition} AND value > ?"
            return {value for (value,) in txn.all(sql, (*args, 10))}

        def find_blobs(txn: Transaction, values: list[bytes]) -> int:
            condition, args = txn.any_of("b", values)
            return int(txn.value(f"SELECT count(*) FROM blobs WHERE {condition}", args))

        await self.db.write(fill)
        for count in (0, 1, 30, 150):
            wanted = set(range(11, count))
            self.assertEqual(await self.db.read(find, "value", range(count)), wanted)
            texts = {f"n'{i}" for i in range(count)}
            self.assertEqual(await self.db.read(find, "name", texts), wanted)
            # No stored text holds U+0000.
            self.assertEqual(await self.db.read(find, "name", {*texts, "n\0"}), wanted)
        self.assertEqual(await self.db.read(find_blobs, [bytes([i]) for i in range(50)]), 50)
        many = [*range(40_000)]
        self.assertEqual(len(await self.db.read(find, "value", many)), 189)

    async def test_row_counts(self) -> None:
        def counts(txn: Transaction) -> list[int]:
            add_one = "INSERT INTO counters (name, value) VALUES (?, 1) ON CONFLICT DO NOTHING"
            return [
                txn.execute(add_one, ("a",)),
                txn.execute(add_one, ("a",)),
                txn.execute(add_one, ("b",)),
                txn.execute("UPDATE counters SET value = 2"),
                txn.execute("DELETE FROM counters WHERE name = ?", ("c",)),
                txn.execute("DELETE FROM counters RETURNING name"),
            ]

        self.assertEqual(await self.db.write(counts), [1, 0, 1, 2, 0, 2])

    async def test_concurrent_increments_all_count(self) -> None:
        await gatherResults([ensureDeferred(self.db.write(add, "n")) for _ in range(40)])
        self.assertEqual(await self.db.read(get, "n"), 40)

    async def test_a_conflict_is_tried_again_from_the_start(self) -> None:
        attempts: list[int] = []

        def fail_twice(txn: Transaction) -> str:
            put(txn, f"attempt {len(attempts)}", 0)
            txn.after_commit(lambda: called.append(len(attempts)))
            attempts.append(1)
            if len(attempts) < 3:
                raise Conflict("simulated")
            return "done"

        called: list[int] = []
        self.assertEqual(await self.db.write(fail_twice), "done")
        self.assertEqual(await self.db.read(names), ["attempt 2"])
        self.assertEqual(called, [3])

    async def test_context_variables_reach_the_thread(self) -> None:
        _who.set("alice")

        def ask(txn: Transaction) -> str:
            who = _who.get()
            _who.set("the thread")
            return who

        self.assertEqual(await self.db.read(ask), "alice")
        self.assertEqual(await self.db.write(ask), "alice")
        self.assertEqual(_who.get(), "alice")

    async def test_transactions_are_reported(self) -> None:
        reports: list[Timing] = []
        db = await self.open(observe=reports.append)
        await db.write(put, "a", 1)
        await db.read(names)
        with self.assertRaises(IntegrityViolation):
            await db.write(put, "a", 1)
        await db.close()
        seen = sorted((r.name, r.kind, r.statements, r.failed) for r in reports)
        self.assertEqual(
            seen,
            [("names", "read", 1, False), ("put", "write", 1, False), ("put", "write", 1, True)],
        )

    async def test_closing_waits_for_running_transactions(self) -> None:
        writing = ensureDeferred(self.db.write(put, "a", 1))
        await self.db.close()
        await writing
        with self.assertRaises(DatabaseClosed):
            await self.db.read(names)


@on_each_database
class CancelTest(DatabaseTestCase):
    async def prepare(self) -> None:
        self.db = await self.open(connections=2)

    async def cancel_running(self, run: Any) -> Any:
        started, go_on = threading.Event(), threading.Event()

        def slow(txn: Transaction) -> str:
            if run == self.db.write:
                put(txn, "slow", 1)
                txn.after_commit(lambda: effects.append("slow"))
            started.set()
            go_on.wait(20)
            return "result"

        effects: list[str] = []
        running = ensureDeferred(run(slow))
        while not started.is_set():
            waiting: Deferred[None] = Deferred()
            reactor.callLater(0.001, waiting.callback, None)
            await waiting
        running.cancel()
        go_on.set()
        with self.assertRaises(CancelledError):
            await running
        return effects

    async def test_a_cancelled_read_leaves_the_connection_usable(self) -> None:
        await self.cancel_running(self.db.read)
        self.assertEqual(await self.db.read(names), [])

    async def test_a_cancelled_write_that_runs_takes_effect(self) -> None:
        effects = await self.cancel_running(self.db.write)
        await self.db.write(put, "next", 1)
        self.assertEqual(await self.db.read(names), ["next", "slow"])
        self.assertEqual(effects, ["slow"])

    async def test_a_write_cancelled_in_the_queue_is_not_run(self) -> None:
        go_on = threading.Event()
        first = ensureDeferred(self.db.write(lambda txn: go_on.wait(20)))
        second = ensureDeferred(self.db.write(put, "second", 1))
        second.cancel()
        go_on.set()
        await first
        with self.assertRaises(CancelledError):
            await second
        await self.db.write(put, "third", 1)
        self.assertEqual(await self.db.read(names), ["third"])


@on_each_database
class ClockTest(DatabaseTestCase):
    async def prepare(self) -> None:
        self.bus = MemoryBus(reactor)
        self.db = await self.open(bus=self.bus)

    async def test_positions_grow(self) -> None:
        def take(txn: Transaction, n: int) -> int:
            return txn.next_pos(n)

        self.assertEqual(await self.db.position(), 0)
        self.assertEqual(await self.db.write(take, 1), 1)
        self.assertEqual(await self.db.write(take, 5), 6)
        self.assertEqual(await self.db.position(), 6)
        with self.assertRaises(ValueError):
            await self.db.write(take, 0)
        self.assertEqual(await self.db.position(fresh=True), 6)
        self.assertEqual(await self.db.read(clock.position), 6)

    async def test_a_rolled_back_position_is_taken_again(self) -> None:
        def fail(txn: Transaction) -> None:
            txn.next_pos()
            raise LookupError

        with self.assertRaises(LookupError):
            await self.db.write(fail)
        self.assertEqual(await self.db.write(lambda txn: txn.next_pos()), 1)

    async def test_whoever_sees_a_position_sees_all_before_it(self) -> None:
        """Shows SYN-3."""

        def append(txn: Transaction, i: int) -> int:
            pos = txn.next_pos()
            put(txn, f"{pos:05}", i)
            return pos

        def look(txn: Transaction) -> tuple[int, list[str]]:
            return clock.position(txn), names(txn)

        writing = gatherResults([ensureDeferred(self.db.write(append, i)) for i in range(60)])
        seen = 0
        while seen < 60:
            seen, found = await self.db.read(look)
            self.assertEqual(found, [f"{pos:05}" for pos in range(1, seen + 1)])
        self.assertEqual(sorted(await writing), [*range(1, 61)])

    async def test_other_processes_are_seen_by_a_fresh_position(self) -> None:
        url = self.database_url()
        here, there = await self.open(url), await self.open(url)
        await there.write(lambda txn: txn.next_pos(3))
        self.assertEqual(await here.position(), 0)
        self.assertEqual(await here.position(fresh=True), 3)
        await there.write(lambda txn: txn.next_pos())
        await here.write(lambda txn: txn.next_pos())
        self.assertEqual(await here.position(), 5)

    async def test_effects_happen_in_order_on_the_reactor_thread(self) -> None:
        reactor_thread = threading.get_ident()
        seen: list[Any] = []

        def note(*what: Any) -> None:
            self.assertEqual(threading.get_ident(), reactor_thread)
            seen.append(what)

        def work(txn: Transaction) -> None:
            txn.notify("room:a", "room:b")
            txn.notify("room:a")
            txn.after_commit(lambda: note("callback"))
            txn.invalidate("profiles", "@a:x")
            txn.next_pos(2)

        self.db.on_commit(lambda channels, pos: note(channels, pos))
        self.db.on_invalidate("profiles", lambda key: note("dropped", key), None)
        heard: Deferred[bytes] = Deferred()
        self.bus.subscribe("room:b", heard.callback)
        await self.db.write(work)
        self.assertEqual(seen, [("dropped", "@a:x"), ("callback",), (("room:a", "room:b"), 2)])
        self.assertEqual(await heard, f"{self.db.process_token}:2".encode())

    async def test_an_effect_that_fails_does_not_fail_the_write(self) -> None:
        def work(txn: Transaction) -> str:
            txn.after_commit(lambda: 1 // 0)
            txn.after_commit(lambda: seen.append("second"))
            return "written"

        seen: list[str] = []
        self.assertEqual(await self.db.write(work), "written")
        self.assertEqual(seen, ["second"])

    async def test_invalidations_reach_other_processes(self) -> None:
        url = self.database_url()
        here, there = await self.open(url), await self.open(url)
        dropped: list[str] = []
        here.on_invalidate("profiles", dropped.append, None)

        def change(txn: Transaction) -> None:
            txn.invalidate("profiles", "@a:x")
            txn.invalidate("profiles", "@a:x")
            txn.invalidate("other", "@b:x")

        await there.write(change)
        self.assertEqual(await there.position(), 1)
        await here.look()
        self.assertEqual(dropped, ["@a:x"])
        await here.look()
        self.assertEqual(dropped, ["@a:x"])

    async def test_a_position_is_not_told_before_its_invalidations(self) -> None:
        """A commit of this process waits for the look that covers another's before it."""
        url = self.database_url()
        here, there = await self.open(url), await self.open(url)
        dropped: list[str] = []
        here.on_invalidate("profiles", dropped.append, None)
        await there.write(lambda txn: txn.invalidate("profiles", "@a:x"))
        await here.write(lambda txn: txn.next_pos())
        self.assertEqual(here.positions.applied, 0)
        self.assertEqual(await here.position(), 2)
        self.assertEqual(dropped, ["@a:x"])


class UrlTest(SynchronousTestCase):
    def test_malformed_urls_are_refused(self) -> None:
        for url in ("", "sqlite://", "sqlite:///", "mysql://x/y", "hearth.db"):
            with self.assertRaises(ValueError):
                backend_for(url)

    def test_sqlite_paths(self) -> None:
        for url, path in (
            ("sqlite:///data/hearth.db", "data/hearth.db"),
            ("sqlite:////var/lib/hearth.db", "/var/lib/hearth.db"),
        ):
            backend = backend_for(url)
            assert isinstance(backend, SqliteBackend)
            self.assertEqual(str(backend.path), path)
