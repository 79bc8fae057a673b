"""What is to be found of events, and the reader of the log that makes it so.

Client-server API, "Server Side Search". The text of a message is made findable soon after it was
written, not while it is. Redacting an event removes its text at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import orjson
from twisted.internet.interfaces import IReactorTime

from homeserver.core import words
from homeserver.core.event import Event
from homeserver.core.texts import TYPES, text_of
from homeserver.rooms.write import WrittenRoom
from storage import message_words
from storage.database import Database
from storage.events import EventRow
from storage.log_readers import LogReader
from storage.message_words import AddRead, Text, Written
from storage.transaction import Transaction

NAME = "messages"
STEP = 200
"""Events of one step."""
MOST_AT_ONCE = 10_000
"""Characters of texts up to which their events are made findable where they are added: the clock
is locked meanwhile."""
MOST_DIRECTLY = 1_000
"""Words up to which the reactor thread says what is to be written."""


def texts_of(rows: Iterable[EventRow | Written]) -> list[Text]:
    """What the table gets of events."""
    found = []
    for row in rows:
        if row.type not in TYPES or row.redacted_by is not None:
            continue
        text = _text(row, text_of(row.type, row.state_key, _content(row.json)))
        if text is not None:
            found.append(text)
    return found


def _content(text: str) -> Any:
    try:
        return orjson.loads(text).get("content")
    except orjson.JSONDecodeError:
        return json.loads(text).get("content")


class AtOnce:
    """Makes events findable in the transaction that adds them, if the reader of the log has all
    that was before, and the texts are not long.

    Parameters: `events`, those that are added.
    """

    def __init__(self, events: Iterable[Event]) -> None:
        self._texts = {
            event.event_id: text
            for event in events
            if (text := text_of(event.type, event.state_key, event.content)) is not None
        }

    @property
    def reader(self) -> str | None:
        """The reader that has to be moved over the positions; None: the texts are left to it."""
        length = sum(len(text) for _, text in self._texts.values())
        return NAME if length <= MOST_AT_ONCE else None

    def add(self, txn: Transaction, rows: Iterable[EventRow]) -> None:
        """To be called once the reader was moved, with all of the events that have positions.
        What the transaction redacts besides has to be redacted afterwards."""
        found = [_text(row, self._texts.get(row.event_id)) for row in rows]
        message_words.add(txn, [text for text in found if text is not None], is_new=True)


def _text(row: EventRow | Written, text: tuple[str, str] | None) -> Text | None:
    """What the table gets of an event with this kind of text."""
    contained = words.words(text[1]) if text is not None else []
    if text is None or not contained:
        return None
    return Text(row.event_nid, row.room_nid, row.origin_server_ts, text[0], contained)


def add_fetched(txn: Transaction, rows: Iterable[EventRow]) -> None:
    """Make history findable that was got from other servers: it is not in the log."""
    message_words.add_kept(txn, texts_of(row for row in rows if row.pos is not None))


class SearchableTexts(LogReader[Sequence[Text]]):
    """Makes what is written to rooms findable.

    Parameters: `told(at_once, count)` is called with the number of new events that have texts, and
    whether these are findable already.
    """

    def __init__(
        self,
        db: Database,
        reactor: IReactorTime,
        told: Callable[[bool, int], object] = lambda at_once, count: None,
    ) -> None:
        super().__init__(db, reactor, NAME)
        self._told = told

    def written(self, room: WrittenRoom) -> None:
        """For `Appender.on_written`."""
        count = sum(entry.row.type in TYPES for entry in room.entries)
        if count:
            self._told(room.is_searchable, count)
            if not room.is_searchable:
                self.wake()

    def read(self, txn: Transaction, after: int, upto: int) -> tuple[int, Sequence[Text] | None]:
        rows = message_words.read(txn, TYPES, after, upto, STEP)
        if len(rows) == STEP:
            upto = rows[-1].pos or upto
        return upto, texts_of(rows) or None

    def write(self, txn: Transaction, found: Sequence[Text]) -> None:
        # What was redacted since it was read must not come back.
        message_words.add_kept(txn, found)

    def single(self, after: int, upto: int, found: Sequence[Text]) -> AddRead | None:
        if sum(len(text.words) for text in found) > MOST_DIRECTLY:
            return None
        return AddRead(NAME, after, upto, found)
