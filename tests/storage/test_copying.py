"""Many rows at once: on PostgreSQL they are sent by COPY."""

from __future__ import annotations

import random
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from storage.copying import _value, copy_statement, copy_text
from storage.database import Database
from storage.errors import IntegrityViolation, InvalidText
from storage.transaction import Transaction
from tests.support.databases import DatabaseTestCase, on_each_database

MANY = 300
TEXTS = ("", "\\", "\\N", "\\.", "a\tb", "a\nb", "a\r\nb", "ü \U0001f600", "'; --", "\\x41", "%s")
INSERT = "INSERT INTO sample (a, b, c, d) VALUES (?, ?, ?, ?)"


def make_table(txn: Transaction) -> None:
    table = "CREATE TABLE sample (a BIGINT PRIMARY KEY, b TEXT, c BLOB, d BOOLEAN)"
    txn.execute(txn.dialect.schema(table))


def rows() -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = [
        (number, TEXTS[number % len(TEXTS)], bytes([number % 256, 0, 92, 10]), number % 2 == 0)
        for number in range(MANY)
    ]
    return [*found, (MANY, None, None, None), (-(2**62), "last", b"", True)]


def insert(txn: Transaction, listed: list[tuple[Any, ...]]) -> None:
    txn.many(INSERT, listed)


def everything(txn: Transaction) -> list[tuple[Any, ...]]:
    found = txn.all("SELECT a, b, c, d FROM sample ORDER BY a")
    return [
        (a, b, None if c is None else bytes(c), None if d is None else bool(d))
        for a, b, c, d in found
    ]


@on_each_database
class ManyRowsTest(DatabaseTestCase):
    async def prepare(self) -> None:
        self.db: Database = await self.open()
        await self.db.write(make_table)

    async def test_all_values(self) -> None:
        """What is read is what was written, whatever the texts hold."""
        await self.db.write(insert, rows())
        self.assertEqual(await self.db.read(everything), sorted(rows()))

    async def test_conflict(self) -> None:
        """A key that is there already is an IntegrityViolation, and nothing is written."""
        await self.db.write(insert, [(7, "mine", b"", False)])
        with self.assertRaises(IntegrityViolation):
            await self.db.write(insert, rows())
        self.assertEqual(await self.db.read(everything), [(7, "mine", b"", False)])

    async def test_invalid_text(self) -> None:
        """U+0000 and lone surrogates are refused."""
        for text in ("a\x00b", "\ud800"):
            bad = [*rows(), (MANY + 1, text, None, None)]
            with self.assertRaises(InvalidText):
                await self.db.write(insert, bad)
        self.assertEqual(await self.db.read(everything), [])


class CopyTest(SynchronousTestCase):
    def test_statements(self) -> None:
        """Only inserts that do nothing else become a COPY."""
        self.assertEqual(copy_statement(INSERT), "COPY sample (a, b, c, d) FROM STDIN")
        for more in (" ON CONFLICT DO NOTHING", " RETURNING a", ", (1, 2, 3, 4)"):
            self.assertIsNone(copy_statement(INSERT + more))
        self.assertIsNone(copy_statement("INSERT INTO sample (a) VALUES (now())"))
        self.assertIsNone(copy_statement("INSERT INTO sample (a, b) VALUES (1, ?)"))

    def test_unknown_type(self) -> None:
        """A value that COPY is not taught is a ValueError."""
        with self.assertRaises(ValueError):
            copy_text([(object(),)])


class ColumnsTest(SynchronousTestCase):
    def test_columns_of_one_type(self) -> None:
        """Columns are written as a whole where all values are alike, with the same result."""
        values = [
            ("plain", 1, None, True, b"\x00\\", "a\tb"),
            ("text", -2, None, False, b"", "\\N"),
            ("", 2**62, None, True, b"\n", "c\nd\re"),
        ]
        one_by_one = b"".join(copy_text([row, (0.5, "x", "y", 1, None, None)]) for row in values)
        lines = [line for line in one_by_one.split(b"\n") if not line.startswith(b"0.5\t")]
        self.assertEqual(copy_text(values).split(b"\n"), lines)
        for given in (["a", None, "", "\t"], ["a", None], [True, False], [True, None, 0, "\\"]):
            column: list[tuple[Any, ...]] = [(value,) for value in given]
            expected = b"".join(copy_text([row, (0.5,)])[:-4] for row in column)
            self.assertEqual(copy_text(column), expected)
        self.assertEqual(copy_text([("",)]), b"\n")
        self.assertEqual(copy_text([]), b"")
        self.assertRaises(InvalidText, copy_text, [("a",), ("\x00",)])
        self.assertRaises(UnicodeEncodeError, copy_text, [("\ud800",), ("b",)])
        self.assertRaises(ValueError, copy_text, [([],), ([],)])

    def test_columns_of_one_value(self) -> None:
        """Wherever they stand, neighbours or not, and not mistaken for ones of equal values."""
        rng = random.Random(5)
        kinds: list[list[Any]] = [
            [7],
            ["a\t"],
            [None],
            [True],
            [0, False],
            [1, True, 1.0],
            [0.0, -0.0],
        ]
        kinds += [["a", "b"], [1, 2], [None, ""], [b"\x00"]]
        for _ in range(300):
            columns = [rng.choice(kinds) for _ in range(rng.randrange(1, 8))]
            rows = [tuple(map(rng.choice, columns)) for _ in range(rng.randrange(1, 9))]
            lines = ["\t".join(_value(value) for value in row) + "\n" for row in rows]
            self.assertEqual(copy_text(rows).decode(), "".join(lines))
