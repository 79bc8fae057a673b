"""Messages that need nothing from the database before they are written.

Most of what is sent are messages to rooms whose head and state are in memory. They are built,
checked, signed and judged by the same code as everything else, on what is cached and with a
transaction that has no database: whatever would have to be read stops it, and the request goes
the general way (`homeserver.rooms.commit`). What is left is one statement, which writes them only
if the heads are still those that they were built on (`storage.appending`).

Nothing is refused here: a refusal is for the newest state to decide, so that it goes the general
way too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from homeserver.core.errors import MatrixError
from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.rooms.commit import AppendContext, CachedHead, Job, draft_of
from homeserver.rooms.draft import RoomDraft
from homeserver.rooms.requests import Appended, AppendRequest
from homeserver.rooms.unread import Judgement, judge
from homeserver.rooms.write import WrittenEvent, WrittenRoom, message_rows
from storage import outgoing
from storage.appending import Append, Move
from storage.dialect import PORTABLE
from storage.events import EventRow, TransactionKey
from storage.rooms import RoomRow
from storage.transaction import NoStatements, StatementNeeded

_REDACTION = "m.room.redaction"

Sent = tuple[int, str, TransactionKey]
"""Room, sender, and transaction of a message."""


_NO_DATABASE = NoStatements(PORTABLE)


class Messages(NamedTuple):
    """Plain messages that were added to a room, in the order of their positions."""

    room: RoomRow
    """With the state that they were sent in."""
    rows: Sequence[EventRow]


Told = Callable[[int, Sequence[Messages]], object]
"""Told of all that is at the positions behind one, without a gap: nothing but messages."""


@dataclass(slots=True)
class _Room:
    """Messages for one room. `before` is the head that they are built on."""

    before: CachedHead
    draft: RoomDraft
    jobs: list[Job] = field(default_factory=list)


@dataclass(slots=True)
class Plain:
    """Messages that are ready to be written, and what is left of the requests."""

    rooms: list[_Room]
    rows: list[EventRow]
    rest: list[Job]
    """In the order of arrival. For each room they come after those that are ready."""

    @property
    def jobs(self) -> list[Job]:
        """The requests of the messages."""
        return [job for room in self.rooms for job in room.jobs]

    def statement(self, told: Iterable[Told] = ()) -> Append:
        """What writes the messages. `told`: called on the reactor thread when it is done."""
        listeners = tuple(told)
        moves = [Move(room.before.row, room.draft.row, len(room.jobs)) for room in self.rooms]
        channels = [f"room:{move.after.room_nid}" for move in moves]
        if any(row.outgoing for row in self.rows):
            channels.append(outgoing.CHANNEL)

        def done(base: int) -> None:
            messages = list(self._messages(base))
            for listener in listeners:
                listener(base, messages)

        return Append(moves, self.rows, channels, done if listeners else None)

    def _messages(self, base: int) -> Iterable[Messages]:
        rows = iter(self.rows)
        for room in self.rooms:
            here = [next(rows) for _ in room.jobs]
            placed = [row._replace(pos=base + (row.pos or 0)) for row in here]
            yield Messages(room.draft.row, placed)

    def written(self, base: int) -> tuple[list[WrittenRoom], list[tuple[Job, Appended]]]:
        """What was added behind a position, and the answers."""
        found: list[WrittenRoom] = []
        answers: list[tuple[Job, Appended]] = []
        rows = iter(self.rows)
        pos = base
        for room in self.rooms:
            entries = []
            room_id = room.draft.row.room_id
            for new, job in zip(room.draft.added, room.jobs, strict=True):
                pos += 1
                row = next(rows)._replace(pos=pos)
                entries.append(WrittenEvent(new.event, row.event_nid, pos, row, None))
                answers.append((job, Appended(room_id, (row.event_id,), pos)))
            room.draft.row = room.draft.row._replace(last_pos=pos)
            found.append(WrittenRoom(room.draft.row.room_nid, room_id, tuple(entries)))
        return found, answers

    def room_ids(self, room_nids: Collection[int]) -> list[str]:
        """The IDs of those of the rooms that have these numbers."""
        rows = [room.before.row for room in self.rooms]
        return [row.room_id for row in rows if row.room_nid in room_nids]

    def sent(self) -> Iterable[Sent]:
        """What is in the rooms once it is written."""
        for row in self.rows:
            key = TransactionKey(row.txn_device or "", row.txn_scope or "", row.txn_id or "")
            yield row.room_nid, row.sender, key

    def note_attempt(self) -> None:
        """Nobody knows whether it was written: have it looked for before it is tried again."""
        for job, row in zip(self.jobs, self.rows, strict=True):
            job.perhaps = row.event_id

    def heads(self) -> Iterable[tuple[str, CachedHead]]:
        """The heads of the rooms after `written`."""
        for room in self.rooms:
            yield room.draft.row.room_id, CachedHead(room.draft.row, room.before.known)


def prepare(
    context: AppendContext,
    jobs: Sequence[Job],
    sent: Callable[[Sent], bool],
    general: Callable[[str], bool],
) -> Plain:
    """Build what can be built from memory.

    Parameters:
        jobs: requests in the order of arrival.
        sent: whether a message may be in its room already.
        general: whether messages to a room shall go the general way.
    """
    gathering = _Gathering(context, sent, general)
    for number, job in enumerate(jobs):
        gathering.take(number, job)
    return gathering.finish()


class _Gathering:
    def __init__(
        self,
        context: AppendContext,
        sent: Callable[[Sent], bool],
        general: Callable[[str], bool],
    ) -> None:
        self._context = context
        self._sent = sent
        self._general = general
        self._rooms: dict[str, _Room] = {}
        self._closed: set[str] = set()
        """Rooms whose further requests have to come after one that goes the general way."""
        self._seen: set[Sent] = set()
        self._rest: dict[int, Job] = {}
        self._numbers: dict[int, int] = {}
        """The place of a job in the order of arrival, by its identity."""

    def take(self, number: int, job: Job) -> None:
        request = job.request
        room_id = request.room_id
        if room_id is None or room_id in self._closed or not self._add(room_id, job):
            self._rest[number] = job
            if room_id is not None:
                self._closed.add(room_id)
            if request.succession is not None:
                self._closed.add(request.succession.old_room_id)
            return
        self._numbers[id(job)] = number

    def _add(self, room_id: str, job: Job) -> bool:
        request = job.request
        transaction = request.transaction
        if transaction is None or not is_plain(request):
            return False
        template = request.templates[0]  # type: ignore[index]
        room = self._rooms.get(room_id) or self._open(room_id)
        if room is None:
            return False
        key = (room.draft.row.room_nid, template.sender, transaction)
        if self._sent(key) or key in self._seen:
            return False
        try:
            room.draft.add(template, self._context.signer, job.now_ms, transaction)
        except (StatementNeeded, MatrixError):
            return False
        self._seen.add(key)
        room.jobs.append(job)
        self._rooms[room_id] = room
        return True

    def _open(self, room_id: str) -> _Room | None:
        if self._general(room_id):
            return None
        head = self._context.heads.get(room_id)
        if head is None:
            return None
        version = ROOM_VERSIONS.get(head.row.version)
        if version is None or version.event_format == 1 or head.row.state_root is None:
            return None
        # Messages change nothing of what is known, so that it can be shared.
        draft = draft_of(_NO_DATABASE, self._context, head.row, version, head.known)
        return _Room(head, draft)

    def finish(self) -> Plain:
        rooms: list[_Room] = []
        rows: list[EventRow] = []
        for room in self._rooms.values():
            try:
                judged = judge(_NO_DATABASE, self._context.crowds, [room.draft])
            except StatementNeeded:
                self._give_back(room)
                continue
            numbers = self._context.event_numbers.take_free(len(room.jobs))
            if numbers is None or any(map(_tells_somebody, judged.values())):
                self._give_back(room)
                continue
            rows += message_rows(room.draft, numbers, judged, len(rows) + 1)
            rooms.append(room)
        return Plain(rooms, rows, [job for _, job in sorted(self._rest.items())])

    def _give_back(self, room: _Room) -> None:
        for job in room.jobs:
            self._rest[self._numbers[id(job)]] = job


def is_plain(request: AppendRequest) -> bool:
    """Whether a request is for a message that nothing else has to be done for or looked up.

    Messages that relate to others are not: what they relate to may be in a thread. Nor are those
    that mention somebody.
    """
    templates = request.templates
    if callable(templates) or len(templates) != 1 or request.guard or request.within:
        return False
    if request.succession or request.create or request.idempotent or request.pretend:
        return False
    template = templates[0]
    if template.state_key is not None or template.redacts is not None:
        return False
    if template.sticky_ms is not None or template.type == _REDACTION:
        return False
    content = template.content
    if "m.relates_to" in content:
        return False
    mentions = content.get("m.mentions")
    return not (isinstance(mentions, dict) and mentions.get("user_ids"))


def _tells_somebody(judgement: Judgement) -> bool:
    return bool(judgement.told)
