"""Migrations, on both databases."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psycopg2
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from storage import migrate
from storage.database import backend_for
from storage.dialect import statements
from storage.errors import DatabaseTooNew, IntegrityViolation
from storage.migrate import Migration
from tests.support.databases import DatabaseTestCase, empty_database, on_each_database

FIRST = """
-- A table; with a comment that's odd: it's got quotes; and semicolons;
CREATE TABLE people (
    -- the person's name;
    name TEXT NOT NULL PRIMARY KEY,
    photo BLOB -- TEXT would be wrong
);

INSERT INTO people (name) VALUES ('semi;colon and BLOB');
"""
SECOND = """
def migrate(txn):
    txn.execute("ALTER TABLE people ADD COLUMN age BIGINT")
    txn.execute("UPDATE people SET age = length(name)")
"""


class SchemaTest(SynchronousTestCase):
    def test_current_sql_is_what_migrations_lead_to(self) -> None:
        made = migrate.current_schema(migrate.find())
        kept = migrate.CURRENT.read_text("utf-8")
        self.assertEqual(
            [migrate.normalised(s) for s in statements(made, "sqlite")],
            [migrate.normalised(s) for s in statements(kept, "sqlite")],
            "run `python -m storage.migrate dump`",
        )

    def test_a_number_used_twice_is_an_error(self) -> None:
        directory = Path(self.mktemp())
        directory.mkdir()
        for name in ("0001_a.sql", "0001_b.sql"):
            (directory / name).write_text("SELECT 1;\n")
        with self.assertRaises(ValueError):
            migrate.find(directory)

    def test_a_statement_for_one_database_only(self) -> None:
        script = "A;\n-- only: sqlite\nB;\n-- only: postgres\nC;\nD;\n"
        self.assertEqual(statements(script, "sqlite"), ["A", "B", "D"])
        self.assertEqual(statements(script, "postgres"), ["A", "C", "D"])

    def test_no_schema_file_has_what_one_database_lacks(self) -> None:
        for migration in migrate.find():
            if migration.path.suffix == ".sql":
                for name in ("sqlite", "postgres"):
                    for statement in statements(migration.path.read_text("utf-8"), name):
                        self.assertNotIn("?", statement, migration.path.name)
                        self.assertNotRegex(statement, r"\bVARCHAR\b|\bJSONB?\b|\bBYTEA\b")


@on_each_database
class MigrateTest(DatabaseTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        (self.directory / "0001_people.sql").write_text(FIRST)
        self.url = empty_database(self, self.kind)

    def session(self) -> Any:
        session = backend_for(self.url).connect(writable=True)
        self.addCleanup(session.close)
        return session

    def run_all(self) -> list[int]:
        done = migrate.migrate(self.session(), migrate.find(self.directory))
        return [migration.version for migration in done]

    def rows(self, sql: str) -> list[Any]:
        session = self.session()
        txn = session.begin()
        try:
            rows: list[Any] = txn.all(sql)
            return rows
        finally:
            session.rollback()

    def test_each_migration_runs_once_in_order(self) -> None:
        self.assertEqual(self.run_all(), [1])
        self.assertEqual(self.run_all(), [])
        (self.directory / "0010_age.py").write_text(SECOND)
        self.assertEqual(self.run_all(), [10])
        self.assertEqual(self.run_all(), [])
        self.assertEqual(
            self.rows("SELECT name, photo, age FROM people"), [("semi;colon and BLOB", None, 19)]
        )
        self.assertEqual(
            self.rows("SELECT version, name FROM schema_version ORDER BY version"),
            [(1, "people"), (10, "age")],
        )

    def test_a_lower_number_that_came_later_still_runs(self) -> None:
        (self.directory / "0003_three.sql").write_text("CREATE TABLE three (n BIGINT);\n")
        self.assertEqual(self.run_all(), [1, 3])
        (self.directory / "0002_two.sql").write_text("CREATE TABLE two (n BIGINT);\n")
        self.assertEqual(self.run_all(), [2])

    def test_a_failing_migration_leaves_nothing(self) -> None:
        broken = self.directory / "0002_broken.sql"
        broken.write_text(
            "CREATE TABLE two (n BIGINT);\n"
            "INSERT INTO people (name) VALUES ('a');\n"
            "INSERT INTO people (name) VALUES ('a');\n"
        )
        with self.assertRaises(IntegrityViolation):
            self.run_all()
        self.assertEqual(self.rows("SELECT version FROM schema_version"), [(1,)])
        broken.write_text("CREATE TABLE two (n BIGINT);\n")
        self.assertEqual(self.run_all(), [2])

    def test_a_newer_database_is_refused(self) -> None:
        (self.directory / "0002_two.sql").write_text("CREATE TABLE two (n BIGINT);\n")
        self.run_all()
        (self.directory / "0002_two.sql").unlink()
        with self.assertRaises(DatabaseTooNew) as caught:
            self.run_all()
        self.assertIn("migration 2", str(caught.exception))
        self.assertIn("newer release", str(caught.exception))

    async def test_processes_starting_together_migrate_once(self) -> None:
        for number in range(2, 8):
            (self.directory / f"{number:04}_t.sql").write_text(
                f"CREATE TABLE t{number} (n BIGINT);\n"
            )
        both = [deferToThread(self.run_all) for _ in range(2)]
        done = [version for running in both for version in await running]
        self.assertEqual(sorted(done), [*range(1, 8)])

    def test_all_migrations_give_the_columns_and_indexes_of_current_sql(self) -> None:
        migrate.migrate(self.session(), migrate.find())
        migrated = self.described()
        self.url = empty_database(self, self.kind)
        made = Migration(1, "current", migrate.CURRENT)
        migrate.migrate(self.session(), [made])
        self.assertEqual(self.described(), migrated)
        self.assertIn("clock", str(migrated))

    def described(self) -> list[Any]:
        if self.kind == "sqlite":
            rows = self.rows("SELECT type, name, sql FROM sqlite_master ORDER BY type, name")
            # What was added by ALTER TABLE ends differently from what was written at first.
            return [(t, n, re.sub(r"\W+", "", s)) for t, n, s in rows if s is not None]
        return self.rows(
            "SELECT table_name::text, column_name::text, data_type::text, is_nullable::text,"
            " column_default::text, collation_name::text FROM information_schema.columns"
            " WHERE table_schema = 'public'"
            " UNION ALL SELECT tablename::text, indexname::text, indexdef, '', '', ''"
            " FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1, 2"
        )

    def test_every_text_column_sorts_by_bytes(self) -> None:
        if self.kind == "sqlite":
            migrate.migrate(self.session(), migrate.find())
            self.assertEqual(
                self.rows("SELECT name FROM sqlite_master WHERE sql LIKE '%COLLATE%'"), []
            )
            return
        try:
            self.url = empty_database(self, self.kind, "LOCALE_PROVIDER icu ICU_LOCALE 'de-DE'")
        except psycopg2.Error as error:
            raise SkipTest(f"This PostgreSQL makes no database with ICU's collation: {error}")
        migrate.migrate(self.session(), migrate.find())
        columns = self.rows(
            "SELECT table_name, column_name, collation_name FROM information_schema.columns"
            " WHERE table_schema = 'public' AND data_type = 'text'"
        )
        self.assertNotEqual(columns, [])
        self.assertEqual([c for c in columns if c[2] != "C"], [])
        self.assertEqual(self.rows("SELECT 'ä' < 'b'"), [(True,)])  # what the default would do
        self.check_order()

    def check_order(self) -> None:
        session = self.session()
        txn = session.begin()
        for name in ("b", "a", "B", "ä"):
            txn.execute("INSERT INTO counters (name, value) VALUES (?, 1)", (name,))
        session.commit()
        found = self.rows("SELECT name FROM counters ORDER BY name")
        self.assertEqual(found, [("B",), ("a",), ("b",), ("ä",)])
        self.assertEqual(self.rows("SELECT name FROM counters WHERE name > 'c'"), [("ä",)])
