"""What is kept of a room's news is bounded, however it is asked for."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from homeserver.core.filters import NO_FILTER
from homeserver.core.push_volume import Volume
from homeserver.sync import caught_up
from homeserver.sync.notifier import tally
from homeserver.sync.room_news import MAX_MADE, Line, RoomNews
from storage.unread import Count, Counts


def news(count: int, size: int) -> RoomNews:
    """A room with so many events of so many bytes."""
    room = RoomNews(0)
    room.room_id = b'"!a:b"'
    data = b'{"content":"' + b"x" * size + b'"'
    room.add(
        [
            Line(pos, f"$e{pos}", "@a:b", None, 1, 0, data, None, b"null", True)
            for pos in range(1, count + 1)
        ]
    )
    room.last = count
    return room


class BoundsTest(SynchronousTestCase):
    def test_chunks(self) -> None:
        """Clients were told up to as many positions as there are events."""
        room = news(40, 50_000)
        for after in range(40):
            chunk = room.chunk(after, 0)
            assert chunk is not None
            self.assertEqual(chunk.length, 40 - after)
            self.assertIs(room.chunk(after, 0), chunk)
            kept = sum(len(one.data) for one in room.chunks.values())
            self.assertLessEqual(kept - len(chunk.data), MAX_MADE)

    def told(self, room: RoomNews, number: int) -> int:
        """Tell it to so many clients, each with unread counts of its own; how many sections are
        kept in the end."""
        chunk = room.chunk(0, 0)
        assert chunk is not None
        one = caught_up._News(1, room.room_id, chunk, None)
        for unread in range(number):
            before = tally(Counts(Count(unread, 0), {}), Volume.EVERYTHING)
            found = caught_up._told(one, before, NO_FILTER, b"state")
            self.assertIn(b'"notification_count":%d,' % (unread + chunk.length), found.data)
            self.assertIs(caught_up._told(one, before, NO_FILTER, b"state"), found)
        return len(chunk.told)

    def test_sections(self) -> None:
        self.assertEqual(self.told(news(20, 50_000), 30), 1)
        self.assertLessEqual(self.told(news(1, 20_000), 200), 7)
        self.assertEqual(self.told(news(1, 100), caught_up.MAX_TOLD), caught_up.MAX_TOLD)
