"""Prepared statements: what they must not change."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from storage import prepared
from storage.database import backend_for
from storage.errors import ConnectionLost
from storage.postgres import PostgresSession
from storage.prepared import PREPARE_AT
from tests.support.databases import administer, chosen_kinds, empty_database


class PreparedTest(TestCase):
    if "postgres" not in chosen_kinds():
        skip = "PostgreSQL is not among HEARTH_TEST_DATABASES"

    def setUp(self) -> None:
        self.url = empty_database(self, "postgres")
        self.session = self.connect()
        self.write(
            "CREATE TABLE things (name TEXT PRIMARY KEY, small INTEGER, big BIGINT, raw BYTEA)"
        )

    def connect(self) -> PostgresSession:
        session = backend_for(self.url).connect(writable=True)
        assert isinstance(session, PostgresSession)
        self.addCleanup(session.close)
        return session

    def write(self, sql: str, *args: Any) -> Any:
        """The result of a statement in a transaction of its own."""
        txn = self.session.begin()
        try:
            found = txn.all(sql, args) if "SELECT" in sql else txn.execute(sql, args)
            self.session.commit()
        except BaseException:
            self.session.rollback()
            raise
        return found

    def names(self) -> list[str]:
        """What the server says is prepared."""
        return [row[0] for row in self.write("SELECT statement FROM pg_prepared_statements")]

    def test_after_a_few_times(self) -> None:
        """Arguments and results are the same before and after."""
        sql = "INSERT INTO things (name, small, big, raw) VALUES (?, ?, ?, ?)"
        for i in range(PREPARE_AT * 2):
            is_prepared = any(text.startswith("PREPARE") for text in self.names())
            self.assertEqual(is_prepared, i >= PREPARE_AT)
            self.assertEqual(self.write(sql, f"n'{i}", None, 2**40 + i, b"\x00'\\"), 1)
        found = self.write("SELECT name, small, big, raw FROM things ORDER BY big")
        self.assertEqual(
            found, [(f"n'{i}", None, 2**40 + i, b"\x00'\\") for i in range(PREPARE_AT * 2)]
        )

    def test_numbers_out_of_range(self) -> None:
        """A comparison with a number that the column cannot hold is no error."""
        self.write("INSERT INTO things (name, small) VALUES (?, ?)", "a", 5)
        for _ in range(PREPARE_AT + 1):
            self.assertEqual(self.write("SELECT name FROM things WHERE small > ?", 4), [("a",)])
        for number, expected in [(2**40, []), (-(2**40), [("a",)]), (4, [("a",)])]:
            found = self.write("SELECT name FROM things WHERE small > ?", number)
            self.assertEqual(found, expected)

    def test_arguments_that_change_their_type(self) -> None:
        """PostgreSQL takes an argument of which nothing is known for text: it stays a number."""
        for _ in range(PREPARE_AT + 2):
            self.assertEqual(self.write("SELECT ?", 5), [(5,)])
        self.assertEqual(self.write("SELECT ?", "5"), [("5",)])

    def test_what_cannot_be_prepared(self) -> None:
        for _ in range(PREPARE_AT + 2):
            self.assertEqual(self.write("SELECT 1 WHERE ? IS NULL", None), [(1,)])

    def test_lists(self) -> None:
        for name in "abc":
            self.write("INSERT INTO things (name, big) VALUES (?, ?)", name, ord(name))
        for _ in range(PREPARE_AT + 2):
            names = self.write("SELECT name FROM things WHERE name = ANY(?)", ["a", "c", "x"])
            numbers = self.write("SELECT name FROM things WHERE big = ANY(?)", [97, 98])
            self.assertEqual((sorted(names), sorted(numbers)), ([("a",), ("c",)], [("a",), ("b",)]))

    def test_only_so_many(self) -> None:
        """Older ones make room for new ones, in the server too, and are made anew."""
        self.patch(prepared, "MAX_PREPARED", 3)
        for _ in range(2):
            for i in range(10):
                for _ in range(PREPARE_AT + 2):
                    self.assertEqual(self.write(f"SELECT name, {i} FROM things"), [])
                self.assertLessEqual(len(self.names()), 3)

    def test_a_table_changes(self) -> None:
        """The connection is given up, and the transaction can be tried again on another."""
        for _ in range(PREPARE_AT + 7):
            self.write("SELECT * FROM things")
        other = self.connect()
        txn = other.begin()
        txn.execute("ALTER TABLE things ADD COLUMN more TEXT")
        other.commit()
        with self.assertRaises(ConnectionLost):
            self.write("SELECT * FROM things")
        self.assertTrue(self.session.broken)

    def test_plans_are_made_anew(self) -> None:
        """Now and then, since those made for an empty table are no good later."""
        self.patch(prepared, "FIRST_PLANS", 0.0)
        self.session = self.connect()
        for _ in range(PREPARE_AT + 12):
            self.assertEqual(self.write("SELECT name FROM things WHERE name = ?", "a"), [])

    def test_the_connection_is_lost_while_preparing(self) -> None:
        """What was committed is committed; the session is not used again."""
        sql = "INSERT INTO things (name) VALUES (?)"
        for i in range(PREPARE_AT - 1):
            self.write(sql, f"{i}")
        between = self.session.prepared.between

        def lost() -> None:
            name = self.url.rpartition("/")[2]
            administer(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                f" WHERE datname = '{name}' AND pid <> pg_backend_pid()",
            )
            between()

        self.patch(type(self.session.prepared), "between", lambda _: lost())
        self.assertEqual(self.write(sql, "last"), 1)
        self.assertTrue(self.session.broken)
