"""Rooms as servers found them before: what is remembered, and what proves it."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from homeserver.rooms import newness
from homeserver.rooms.familiar import FamiliarRooms
from homeserver.rooms.open_to import OpenRoom, as_seen
from storage.residence import KnownRoom, SeenRoom
from storage.room_notes import RoomNotes
from storage.rooms import RoomRow

ROOT = b"root"
ROOM = KnownRoom(1, "!a", "11", True)
SEEN = SeenRoom(ROOM, None, False, None, ROOT)
ROW = RoomRow(1, "!a", "11", 5, 5, ("$x",), ROOT, 1, 0, 0, 0, 0, 1)
NOTES = RoomNotes(False, frozenset(), (), 0)
DENIED = '{"content":{"allow":["*"],"deny":["a.example"]}}'


class FamiliarRoomsTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.rooms = FamiliarRooms()

    def note(self, seen: SeenRoom, origin: str = "a.example") -> None:
        self.rooms.note(origin, seen, as_seen(origin, seen))

    def test_what_is_remembered(self) -> None:
        """Open rooms that this server is in, of each server by itself."""
        self.note(SEEN)
        found = self.rooms.get("a.example", "!a")
        assert found is not None
        self.assertEqual((found.found, found.state_root), (OpenRoom(ROOM, True), ROOT))
        self.assertIsNone(self.rooms.get("b.example", "!a"))
        self.assertIsNone(self.rooms.get("a.example", "!b"))

    def test_what_is_not(self) -> None:
        for seen in (
            SEEN._replace(room=ROOM._replace(is_here=False)),
            SEEN._replace(access_list=DENIED),
            SEEN._replace(has_backlog=True),
            SEEN._replace(state_root=None),
        ):
            self.note(seen)
            self.assertIsNone(self.rooms.get("a.example", "!a"), seen)
        self.note(SEEN._replace(access_list=DENIED), "b.example")
        self.assertIsNotNone(self.rooms.get("b.example", "!a"))

    def test_what_proves_it(self) -> None:
        self.note(SEEN)
        found = self.rooms.get("a.example", "!a")
        assert found is not None
        self.assertTrue(found.is_proved(ROW, NOTES))
        self.assertTrue(found.is_proved(ROW._replace(head_version=9, extremities=("$y",)), NOTES))
        for row, notes in (
            (ROW._replace(room_nid=2), NOTES),
            (ROW._replace(state_root=b"other"), NOTES),
            (ROW._replace(state_root=None), NOTES),
            (ROW, NOTES._replace(is_partial=True)),
            (ROW, NOTES._replace(has_backlog=True)),
        ):
            self.assertFalse(found.is_proved(row, notes))

    def test_after_it_was_not_so(self) -> None:
        """The room is looked up some times before it is presumed to be as it was."""
        self.note(SEEN)
        self.rooms.disproved("a.example", "!a")
        self.assertIsNone(self.rooms.get("a.example", "!a"))
        found = []
        for _ in range(newness.LOOKS + 1):
            self.note(SEEN)
            found.append(self.rooms.get("a.example", "!a") is not None)
        self.assertEqual(found, [False] * newness.LOOKS + [True])

    def test_bounded(self) -> None:
        (cache,) = self.rooms.caches
        for number in range(2000):
            self.note(SEEN._replace(room=ROOM._replace(room_id=f"!{number}" + "x" * 200)))
        self.assertLess(len(cache), 2000)
        self.assertLess(cache.bytes, 2000 * len(cache))
        self.assertGreater(cache.bytes, 200 * len(cache))
