"""SQLite alone: what cannot be opened."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from storage.errors import UnusableDatabase
from storage.sqlite import SqliteBackend

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
