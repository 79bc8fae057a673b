"""SQLite alone: what cannot be opened, and a full disk."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from structlog.testing import capture_logs
from twisted.trial.unittest import SynchronousTestCase, TestCase

from storage.errors import DatabaseFull, UnusableDatabase
from storage.sqlite import SqliteBackend
from storage.transaction import Transaction
from tests.support.databases import migrated_database
from tests.support.server import make_server

_NOBODY = 65534


@contextmanager
def unprivileged() -> Iterator[None]:
    """Do without root's right to write everywhere."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


class ReadOnlyTest(SynchronousTestCase):
    """SQLite opens such files without complaint, and fails at the first write."""

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="hearth-sqlite-"))
        self.addCleanup(shutil.rmtree, self.directory)
        self.path = self.directory / "homeserver.db"
        self.backend = SqliteBackend(self.path)
        session = self.backend.connect(writable=True)
        session.begin().execute("CREATE TABLE x (y BIGINT)")
        session.commit()
        session.close()

    def refused(self) -> str:
        with unprivileged(), self.assertRaises(UnusableDatabase) as caught:
            self.backend.connect(writable=True).close()
        return str(caught.exception)

    def test_a_file_that_cannot_be_written_is_refused(self) -> None:
        self.directory.chmod(0o777)
        self.path.chmod(0o444)
        self.assertIn(f"{self.path} is not writable", self.refused())

    def test_a_directory_that_cannot_be_written_is_refused(self) -> None:
        self.path.chmod(0o666)
        self.directory.chmod(0o555)
        self.addCleanup(self.directory.chmod, 0o755)
        self.assertIn(f"{self.directory} is not writable", self.refused())


class FullTest(TestCase):
    """No room to write: a bound on the pages of the file stands for the disk."""

    timeout = 30

    async def test_a_full_disk(self) -> None:
        server = await make_server(self, database_url=migrated_database(self, "sqlite"))
        alice, db = await server.register(), server.homeserver.db
        room_id = await alice.create_room()

        def bound(txn: Transaction, pages: int) -> int:
            count = int(txn.value("PRAGMA page_count") or 0)
            return int(txn.value(f"PRAGMA max_page_count = {count + pages}") or 0)

        await db.write(bound, 0)
        path, body = f"/rooms/{room_id}/send/m.room.message", {"body": "x" * 20_000}
        with capture_logs() as lines:
            for number in range(3):
                status, answer = await alice.call("PUT", f"{path}/{number}", body)
                self.assertEqual((status, answer["errcode"]), (503, "M_UNKNOWN"))
        self.assertEqual({line["log_level"] for line in lines}, {"warning"}, lines)
        self.assertIn("full", lines[0]["reason"])
        # It is said at once, and what needs no room is answered.
        self.assertEqual((await alice.call("GET", "/account/whoami"))[0], 200)
        await db.write(bound, 100_000)
        await alice.send(room_id, body)

    async def test_what_is_raised(self) -> None:
        server = await make_server(self, database_url=migrated_database(self, "sqlite"))

        def fill(txn: Transaction) -> None:
            count = int(txn.value("PRAGMA page_count") or 0)
            txn.value(f"PRAGMA max_page_count = {count}")
            for number in range(1000):
                sql = "INSERT INTO blocked_rooms VALUES (?, ?, 0)"
                txn.execute(sql, (f"!{number}:{'x' * 4000}", "@a:b"))

        with self.assertRaises(DatabaseFull):
            await server.homeserver.db.write(fill)
