"""Noting which events name which files, as the log is read.

Of member events only files of this server are noted: that somebody elsewhere has a picture is of
no use here, and there are many of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from twisted.internet.interfaces import IReactorTime

from homeserver.core import media as names
from homeserver.rooms.write import WrittenRoom
from storage import media_references
from storage.database import Database
from storage.events import EventRow
from storage.log_readers import LogReader
from storage.media_references import Reference
from storage.message_words import lock_texts
from storage.transaction import Transaction

NAME = "media"
STEP = 200
"""Events of one step."""
WINDOW = 5_000
"""Positions that are looked at together: most events name no file."""


def references_of(row: EventRow, content: object, server_name: str) -> list[Reference]:
    """What an event's content names."""
    return [
        Reference(*name, row.event_nid, row.room_nid, row.sender)
        for name in sorted(names.names_in(content))
        if row.type != "m.room.member" or name.server_name == server_name
    ]


class SentMedia(LogReader[Sequence[Reference]]):
    """Follows the log."""

    def __init__(self, db: Database, reactor: IReactorTime, server_name: str) -> None:
        super().__init__(db, reactor, NAME)
        self._server_name = server_name

    def written(self, room: WrittenRoom) -> None:
        """For `Appender.on_written`."""
        if any("mxc://" in entry.row.json for entry in room.entries):
            self.wake()

    def read(
        self, txn: Transaction, after: int, upto: int
    ) -> tuple[int, Sequence[Reference] | None]:
        upto = min(upto, after + WINDOW)
        rows = media_references.events(txn, after, upto, STEP)
        if len(rows) == STEP:
            upto = rows[-1].pos or upto
        return upto, self._found(rows) or None

    def write(self, txn: Transaction, found: Sequence[Reference]) -> None:
        # What was redacted since it was read is noted as such already.
        kept = lock_texts(txn, {each.event_nid for each in found})
        media_references.add(txn, [each for each in found if each.event_nid in kept])

    def _found(self, rows: Iterable[EventRow]) -> list[Reference]:
        return [
            reference
            for row in rows
            for reference in references_of(
                row, json.loads(row.json).get("content"), self._server_name
            )
        ]
