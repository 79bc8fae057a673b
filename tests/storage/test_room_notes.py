"""What a transaction finds of a room that it had to wait for, on PostgreSQL."""

from __future__ import annotations

import threading
import time
from typing import Any

from twisted.trial.unittest import TestCase

from storage import events, gaps, partial_rooms, room_notes, rooms
from storage.database import backend_for
from storage.gaps import Gap
from storage.partial_rooms import PartialRoom
from storage.room_notes import RoomNotes
from tests.storage.test_appending import room
from tests.support.databases import administer, chosen_kinds, migrated_database


class WaitingTest(TestCase):
    if "postgres" not in chosen_kinds():
        skip = "PostgreSQL is not among HEARTH_TEST_DATABASES"

    def setUp(self) -> None:
        self.url = migrated_database(self, "postgres")
        self.other = self.session()
        self.mine = self.session()
        txn = self.other.begin()
        rooms.put(txn, [room(1), room(2)])
        self.other.commit()

    def session(self) -> Any:
        session = backend_for(self.url).connect(writable=True)
        self.addCleanup(session.close)
        return session

    def wait_until_blocked(self) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if administer(
                "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                " AND datname = current_database()",
                self.url,
            ):
                return
            time.sleep(0.01)
        raise AssertionError("nothing waits")

    def test_it_sees_what_was_committed_meanwhile(self) -> None:
        """The row, its versions, and all that is noted."""
        found: list[Any] = []

        def look() -> None:
            found.append(room_notes.lock(self.mine.begin(), "!1:x"))
            self.mine.commit()

        blocking = self.other.begin()
        rooms.lock(blocking, ["!1:x"])
        thread = threading.Thread(target=look)
        thread.start()
        self.wait_until_blocked()
        changed = room(1)._replace(head_version=9, extremities=("$new",), last_pos=3)
        rooms.put(blocking, [changed])
        rooms.contents_changed(blocking, [1])
        partial_rooms.put(blocking, PartialRoom(1, "$join", 1))
        gaps.add(blocking, 1, [Gap("$gap", "$new", 1)])
        events.hold_redaction(blocking, "$a", "$r")
        self.other.commit()
        thread.join(30)
        notes = RoomNotes(True, frozenset({"$gap"}), (("$a", "$r"),), 1)
        self.assertEqual(found, [(changed, notes)])

    def test_others_wait_until_it_ends(self) -> None:
        holding = self.mine.begin()
        self.assertIsNotNone(room_notes.lock(holding, "!1:x"))
        done: list[str] = []

        def change() -> None:
            for number in (2, 1):
                rooms.put(self.other.begin(), [room(number)._replace(head_version=9)])
                self.other.commit()
                done.append(f"!{number}:x")

        thread = threading.Thread(target=change)
        thread.start()
        self.wait_until_blocked()
        self.assertEqual(done, ["!2:x"])
        self.mine.commit()
        thread.join(30)
        self.assertEqual(done, ["!2:x", "!1:x"])
