"""Spelling SQL for two databases."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from storage.dialect import (
    PORTABLE,
    POSTGRES,
    SQLITE,
    check_text,
    split_values,
    to_format_style,
)
from storage.errors import InvalidText
from storage.transaction import Transaction
from tests.support.databases import DatabaseTestCase, on_each_database


class SchemaTest(SynchronousTestCase):
    TABLE = (
        "CREATE TABLE t (id BIGINT NOT NULL PRIMARY KEY, name TEXT NOT NULL DEFAULT 'TEXT BLOB',"
        " hash BLOB, PRIMARY KEY (name)) WITHOUT ROWID"
    )

    def test_sqlite(self) -> None:
        self.assertEqual(
            SQLITE.schema(self.TABLE),
            self.TABLE.replace("BIGINT NOT NULL PRIMARY KEY", "INTEGER PRIMARY KEY"),
        )

    def test_postgres(self) -> None:
        self.assertEqual(
            POSTGRES.schema(self.TABLE),
            'CREATE TABLE t (id BIGINT NOT NULL PRIMARY KEY, name TEXT COLLATE "C" NOT NULL'
            " DEFAULT 'TEXT BLOB', hash BYTEA, PRIMARY KEY (name))",
        )
        self.assertEqual(
            POSTGRES.schema("ALTER TABLE t ADD COLUMN more TEXT"),
            'ALTER TABLE t ADD COLUMN more TEXT COLLATE "C"',
        )
        cast = "UPDATE t SET name = CAST(id AS TEXT)"
        self.assertEqual(POSTGRES.schema(cast), cast)

    def test_portable_changes_nothing(self) -> None:
        self.assertEqual(PORTABLE.schema(self.TABLE), self.TABLE)


class ArgumentTest(SynchronousTestCase):
    def test_placeholders(self) -> None:
        self.assertEqual(to_format_style("a = ? AND b = ?"), "a = %s AND b = %s")

    def test_values_are_split_from_an_insert(self) -> None:
        self.assertEqual(
            split_values("INSERT INTO t (a, b) VALUES (?, ?) ON CONFLICT DO NOTHING"),
            ("INSERT INTO t (a, b) VALUES %s ON CONFLICT DO NOTHING", "(%s, %s)"),
        )

    def test_other_statements_are_not_split(self) -> None:
        for sql in (
            "UPDATE t SET a = ? WHERE b = ?",
            "INSERT INTO t (a) VALUES (?) ON CONFLICT (a) DO UPDATE SET b = ?",
            "INSERT INTO t (a) SELECT b FROM u WHERE c = ?",
        ):
            self.assertIsNone(split_values(sql))

    def test_any_of_keeps_values_out_of_the_statement(self) -> None:
        hostile = ["'; DROP TABLE t; --", '"]}']
        for dialect in (SQLITE, POSTGRES):
            for values in (hostile, hostile * 40):
                sql, args = dialect.any_of("name", values)
                self.assertNotIn("DROP", sql)
                self.assertIn("DROP", str(args))

    def test_text(self) -> None:
        check_text(["", "é", b"\x00", None, 0])
        with self.assertRaises(InvalidText):
            check_text([1, "a\x00"])


@on_each_database
class RowsTest(DatabaseTestCase):
    async def test_rows_of(self) -> None:
        """One row and several, with all that has a meaning in an array."""
        db = await self.open()
        awkward = ['a"b', "c\\d", "{e,f}", "", "NULL", " g ", "é'"]

        def read(txn: Transaction, rows: list[tuple[str, int]]) -> list[tuple[str, int]]:
            query, args = txn.dialect.rows_of(("text", "bigint"), rows)
            found = txn.all(f"WITH w (a, b) AS ({query}) SELECT a, b FROM w", args)
            return [(row[0], row[1]) for row in found]

        rows = [(text, number) for number, text in enumerate(awkward)]
        for _ in range(8):  # also when the statement is prepared
            self.assertEqual(await db.read(read, rows), rows)
        self.assertEqual(await db.read(read, [("x", 7)]), [("x", 7)])
