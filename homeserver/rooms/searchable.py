"""What is to be found of events, and the reader of the log that makes it so.

Client-server API, "Server Side Search". The text of a message is made findable soon after it was
written, not while it is. Redacting an event removes its text at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import orjson
from twisted.internet.interfaces import IReactorTime

from homeserver.core import words
from homeserver.core.event import Event
from homeserver.core.texts import TYPES, text_of
from homeserver.rooms.write import WrittenRoom
from storage import log_readers, message_words
from storage.database import Database
from storage.events import EventRow
from storage.log_readers import LogReader
from storage.message_words import AddRead, Text, Written
from storage.transaction import Transaction

NAME = "messages"
STEP = 200
"""Events of one step."""


def texts_of(rows: Iterable[EventRow | Written]) -> list[Text]:
    """What the table gets of events."""
    found = []
    for row in rows:
        if row.type not in TYPES or row.redacted_by is not None:
            continue
        text = _text(row, _content(row.json))
        if text is not None:
            found.append(text)
    return found


def _content(text: str) -> Any:
    try:
        return orjson.loads(text).get("content")
    except orjson.JSONDecodeError:
        return json.loads(text).get("content")


def add_written(txn: Transaction, rows: Sequence[tuple[Event, EventRow]]) -> bool:
    """Make events findable in the transaction that has just added them, if the reader of the log
    has all that was before; whether that was done.

    `rows` are all events that got the positions of the transaction. What it redacts besides has to
    be redacted afterwards.
    """
    if not log_readers.pass_over(txn, NAME, txn.first_pos, txn.last_pos):
        return False
    message_words.add(
        txn,
        [
            text
            for event, row in rows
            if row.type in TYPES and (text := _text(row, event.content)) is not None
        ],
    )
    return True


def _text(row: EventRow | Written, content: object) -> Text | None:
    """What the table gets of an event."""
    text = text_of(row.type, row.state_key, content)
    contained = words.words(text[1]) if text is not None else []
    if text is None or not contained:
        return None
    return Text(row.event_nid, row.room_nid, row.origin_server_ts, text[0], contained)


def add_fetched(txn: Transaction, rows: Iterable[EventRow]) -> None:
    """Make history findable that was got from other servers: it is not in the log."""
    message_words.add_kept(txn, texts_of(row for row in rows if row.pos is not None))


class SearchableTexts(LogReader[Sequence[Text]]):
    """Makes what is written to rooms findable."""

    def __init__(self, db: Database, reactor: IReactorTime) -> None:
        super().__init__(db, reactor, NAME)

    def written(self, room: WrittenRoom) -> None:
        """For `Appender.on_written`."""
        if not room.is_searchable and any(entry.row.type in TYPES for entry in room.entries):
            self.wake()

    def read(self, txn: Transaction, after: int, upto: int) -> tuple[int, Sequence[Text] | None]:
        rows = message_words.read(txn, TYPES, after, upto, STEP)
        if len(rows) == STEP:
            upto = rows[-1].pos or upto
        return upto, texts_of(rows) or None

    def write(self, txn: Transaction, found: Sequence[Text]) -> None:
        # What was redacted since it was read must not come back.
        message_words.add_kept(txn, found)

    def single(self, after: int, upto: int, found: Sequence[Text]) -> AddRead:
        return AddRead(NAME, after, upto, found)
