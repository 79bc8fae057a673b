"""What is new in one room and the same for everybody in it, as bytes: a part of the journal."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

from homeserver.core import client_format, sticky
from homeserver.core.event import Event
from homeserver.core.tokens import SyncToken
from homeserver.rooms.view import RoomView
from homeserver.sync.streams import receipts as receipts_stream
from homeserver.web.responses import encode_json
from storage.events import EventRow
from storage.receipts import Receipt
from storage.windows import BUMPS

MAX_LINES = 200
"""Events of one room that are kept, and receipts."""
FRESH_MS = 200
"""How long a chunk is good: it says how old its events are."""
NO_TIMELINE = b'"timeline":{"events":[],"limited":false}'

MAX_MADE = 1 << 20
"""Bytes of the chunks of one room that are kept, besides the newest."""
_MAX_CHUNKS = 50
_RECEIPT_SIZE = 500
_MEMBER = "m.room.member"
_OWN_TYPES = ("m.room.redaction", "org.matrix.dummy_event")


class Line(NamedTuple):
    """An event that is the same for everybody in its room but its sender."""

    pos: int
    event_id: str
    sender: str
    member: int | None
    """The number of the sender's member event."""
    notify: int
    """Its class for unread counts."""
    sent_ms: int
    data: bytes
    """The client form without its end, which says how old it is."""
    device_id: str | None
    """The device that sent it with `transaction`, in JSON."""
    transaction: bytes
    bumps: bool
    """Whether it brings the room to the top of lists."""


class Chunk(NamedTuple):
    """The timeline of a room for those who were told up to the same position."""

    made_ms: int
    data: bytes
    """`"timeline": {…}` without braces around it."""
    receipts: bytes
    """The `m.receipt` event; empty: there is none."""
    length: int
    senders: frozenset[str]
    members: frozenset[int]
    """Numbers of the member events of the senders."""
    notify: int
    highlight: int
    told: dict[Hashable, Any]
    """What was made of it for some clients (`homeserver.sync.caught_up`)."""
    restarts: bool = False
    """The user has read everything before what `notify` and `highlight` count: it begins behind a
    message of their own."""


class RoomNews:
    """What is known of a room."""

    __slots__ = (
        "chunks",
        "last",
        "lines",
        "other",
        "places",
        "receipts",
        "room_id",
        "since",
        "size",
    )

    def __init__(self, since: int) -> None:
        self.room_id = b""
        """In JSON; set with the first lines."""
        self.since = since
        """The lines are complete behind this position."""
        self.last = since
        """The last position at which there was anything."""
        self.other = 0
        """The last position of something that is in no line."""
        self.lines: list[Line] = []
        self.places: list[int] = []
        """Positions of the lines."""
        self.receipts: list[Receipt] = []
        """Those that everybody may see, in the order of their positions."""
        self.size = 0
        self.chunks: dict[tuple[int, int, int], Chunk] = {}
        """What many clients are told, by how many lines and receipts it has."""

    def add(self, lines: Sequence[Line], receipts: Sequence[Receipt] = ()) -> None:
        """Add what is newer than all that is there."""
        self.receipts += receipts
        self.size += _RECEIPT_SIZE * len(receipts)
        if len(self.receipts) > MAX_LINES:
            self._cut_receipts(len(self.receipts) - MAX_LINES // 2)
        self.lines += lines
        self.places += [line.pos for line in lines]
        self.size += sum(400 + len(line.data) for line in lines)
        self.chunks.clear()
        if len(self.lines) > MAX_LINES:
            self._cut(len(self.lines) - MAX_LINES // 2)

    def empty(self) -> None:
        """Forget all lines."""
        self._cut(len(self.lines))
        self._cut_receipts(len(self.receipts))

    def forget(self, upto: int) -> None:
        """Forget lines up to a position."""
        self._cut(bisect_right(self.places, upto))
        self._cut_receipts(bisect_right(self.receipts, upto, key=_pos))

    def _cut_receipts(self, count: int) -> None:
        if count:
            self.since = max(self.since, self.receipts[count - 1].pos)
            self.size -= _RECEIPT_SIZE * count
            del self.receipts[:count]
            self.chunks.clear()

    def _cut(self, count: int) -> None:
        if count:
            self.since = max(self.since, self.places[count - 1])
            self.size -= sum(400 + len(line.data) for line in self.lines[:count])
            del self.lines[:count], self.places[:count]
            self.chunks.clear()

    def is_known(self, after: int) -> bool:
        """Whether all that is new behind a position is the same for everybody in the room."""
        return after >= self.since and after >= self.other

    def bumped(self, after: int) -> int:
        """The position behind `after` of the newest event that brings the room to the top of
        lists; 0: there is none."""
        for line in reversed(self.lines):
            if line.pos <= after:
                break
            if line.bumps:
                return line.pos
        return 0

    def chunk(self, after: int, now_ms: int) -> Chunk | None:
        """What is new behind a position; None if it is not the same for all."""
        if not self.is_known(after):
            return None
        first = bisect_right(self.places, after)
        receipt = bisect_right(self.receipts, after, key=_pos) if self.receipts else 0
        key = (len(self.lines) - first, len(self.receipts) - receipt, self.last)
        known = self.chunks.get(key)
        if known is None or not 0 <= now_ms - known.made_ms <= FRESH_MS:
            # Those for whom more is new are told much of what the others are.
            made = sum(len(one.data) for one in self.chunks.values())
            if len(self.chunks) >= _MAX_CHUNKS or made > MAX_MADE:
                self.chunks.clear()
            known = _chunk(self.lines[first:], self.receipts[receipt:], now_ms)
            self.chunks[key] = known
        return known

    def own_chunk(self, shared: Chunk, user_id: str, device_id: str) -> Chunk:
        """The chunk for a user who sent some of its events."""
        lines = self.lines[-shared.length :]
        begins = 0
        for number, line in enumerate(lines):
            # See `storage.unread`: a message of one's own marks what is before it as read.
            if line.sender == user_id and line.notify:
                begins = number + 1
        counted = lines[begins:]
        return shared._replace(
            data=_timeline(lines, shared.made_ms, user_id, device_id),
            notify=sum(line.notify > 0 for line in counted),
            highlight=sum(line.notify > 1 for line in counted),
            told={},
            restarts=begins > 0,
        )


def _pos(receipt: Receipt) -> int:
    return receipt.pos


def _receipt_event(receipts: Sequence[Receipt]) -> bytes:
    """The event; of each user only the newest of a thread is there yet."""
    newest: dict[tuple[str, str], Receipt] = {}
    for receipt in receipts:
        key = (receipt.user_id, receipt.thread_id)
        newest.pop(key, None)
        newest[key] = receipt
    content = receipts_stream.content(newest.values())
    return encode_json({"type": "m.receipt", "content": content})


def _chunk(lines: Sequence[Line], receipts: Sequence[Receipt], now_ms: int) -> Chunk:
    receipt = _receipt_event(receipts) if receipts else b""
    if not lines:
        return Chunk(now_ms, NO_TIMELINE, receipt, 0, frozenset(), frozenset(), 0, 0, {})
    return Chunk(
        now_ms,
        _timeline(lines, now_ms),
        receipt,
        len(lines),
        frozenset(line.sender for line in lines),
        frozenset(line.member for line in lines if line.member is not None),
        sum(line.notify > 0 for line in lines),
        sum(line.notify > 1 for line in lines),
        {},
    )


def _timeline(lines: Sequence[Line], now_ms: int, user_id: str = "", device_id: str = "") -> bytes:
    shown = []
    for line in lines:
        more = b""
        if line.device_id is not None and (line.sender, line.device_id) == (user_id, device_id):
            more = b',"transaction_id":' + line.transaction
        shown.append(
            b'%b,"unsigned":{"age":%d,"membership":"join"%b}}'
            % (line.data, now_ms - line.sent_ms, more)
        )
    token = str(SyncToken(lines[0].pos - 1, 0)).encode()
    return b'"timeline":{"events":[%b],"limited":false,"prev_batch":"%b"}' % (
        b",".join(shown),
        token,
    )


def read_lines(
    view: RoomView, rows: Sequence[EventRow], related: frozenset[str]
) -> list[Line] | None:
    """The events as everybody sees them; None if not everybody sees the same."""
    if not view.is_clear(rows):
        return None
    for row in rows:
        if (
            row.state_key is not None
            or row.redacted_by is not None
            or row.thread_root is not None
            or row.type in _OWN_TYPES
            or row.event_id in related
        ):
            return None
    root = view.room.state_root
    assert root is not None
    members = view.numbers(root, {(_MEMBER, row.sender) for row in rows})
    lines = []
    for row in rows:
        event = view.event(row)
        if sticky.KEY in event.pdu or event.redacts is not None:
            return None
        lines.append(_line(row, event, members.get((_MEMBER, row.sender))))
    return lines


def _line(row: EventRow, event: Event, member: int | None) -> Line:
    shown = client_format.to_client(event, room_id=False)
    data = encode_json(shown)[:-1]
    return Line(
        row.pos or 0,
        row.event_id,
        row.sender,
        member,
        row.notify,
        row.origin_server_ts,
        data,
        row.txn_device,
        encode_json(row.txn_id),
        row.type in BUMPS,
    )
