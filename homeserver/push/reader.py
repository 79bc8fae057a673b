"""Follows the log and writes down which pushers are to be told of what.

One reader for the whole server, which any process moves on: in one transaction its position and
what it found, so that nobody is told twice of an event, and nothing is lost with a process. An
event that notifies nobody who has a pusher leaves no row; while nobody has a pusher, the log is
not even read.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from homeserver.core import pushers as kinds
from homeserver.core.push_rules import Actions, EventClass, Ruleset, tweaks
from homeserver.core.types import JsonObject
from homeserver.rooms.invite_blocking import Invites
from homeserver.rooms.notified import Judged, facts_of, invite_actions, told_by
from homeserver.ticking import start_ticking
from storage import (
    account_data,
    clock,
    events,
    log_readers,
    notified,
    push_queue,
    push_rules,
    pushers,
    rooms,
    thread_subscriptions,
)
from storage.database import Database
from storage.events import EventRow
from storage.log_readers import LogReader
from storage.notified import Invited, Member
from storage.push_queue import Waiting
from storage.pushers import PusherRow
from storage.transaction import Transaction

NAME = "pushes"
STEP = 200
"""Events of one step."""
MAX_NOTICES = 5_000
"""People to be told of the events of one step, but for those of its last event."""
_ALL = 2**62
SOON_S = 0.05
"""Seconds from a commit until it is read."""
POLL_S = 5.0
BADGE_DELAY_MS = 1_000
"""From reading to the new count: who reads goes on reading."""


def _skip(txn: Transaction) -> None:
    log_readers.advance(txn, NAME, log_readers.position(txn, NAME), clock.position(txn))


class Notice(NamedTuple):
    """One user is to be told of one event."""

    user_id: str
    pos: int
    room_nid: int
    event_nid: int
    tweaks: str


class Found(NamedTuple):
    """What a part of the log has for people with pushers."""

    notices: list[Notice]
    readers: set[str]
    """Users whose count of unread messages may be another now."""


class PushReader(LogReader[Found]):
    """See the module. `mail_delay_ms`: how long e-mail waits whether the message is read."""

    def __init__(self, db: Database, reactor: IReactorTime, mail_delay_ms: int) -> None:
        super().__init__(db, reactor, NAME)
        self._clock = reactor
        self._mail_delay = mail_delay_ms
        self._has_pushers = False
        self._poll = LoopingCall(self.wake)
        self._poll.clock = reactor

    async def start(self) -> None:
        """Begin: with what was written while no process ran."""
        await self._look_for_pushers()
        self._db.on_invalidate(pushers.CHANGED, self._changed, lambda: self._changed(""))
        self._db.on_commit(self._committed)
        start_ticking(self._poll, POLL_S)
        self.wake()

    async def stop(self) -> None:
        if self._poll.running:
            self._poll.stop()
        await super().stop()

    async def skip(self) -> None:
        """Nobody is told of what is in the log up to now."""
        await self._db.write(_skip)

    def wake(self) -> None:
        if self._has_pushers and self._call is None and not self._stopped:
            self._call = self._reactor.callLater(SOON_S, self._run)

    def _committed(self, channels: tuple[str, ...], pos: int) -> None:
        self.wake()

    def _changed(self, user_id: str) -> None:
        # Who once had pushers mostly has some again soon.
        self._has_pushers = True
        self.wake()

    async def _look_for_pushers(self) -> None:
        self._has_pushers = await self._db.read(pushers.oldest_since) is not None

    # In transactions

    def read(self, txn: Transaction, after: int, upto: int) -> tuple[int, Found | None]:
        since = pushers.oldest_since(txn)
        if since is None or since >= upto:
            return upto, None
        after = max(after, since)
        rows = notified.loud_events(txn, after, upto, STEP)
        if len(rows) == STEP:
            upto = rows[-1].pos or upto
        notices, judged = _notices(txn, rows)
        upto = min(upto, judged)
        notices += _invites(txn, notified.invites(txn, after, upto))
        senders = {row.sender for row in rows if (row.pos or 0) <= upto}
        readers = notified.readers(txn, after, upto, senders)
        if not notices and not readers:
            return upto, None
        return upto, Found(sorted(notices, key=lambda notice: notice.pos), readers)

    def write(self, txn: Transaction, found: Found) -> None:
        users = {notice.user_id for notice in found.notices} | found.readers
        told: dict[str, list[PusherRow]] = defaultdict(list)
        for pusher in pushers.of_users(txn, users):
            told[pusher.user_id].append(pusher)
        now = int(self._clock.seconds() * 1000)
        waiting: list[Waiting] = []
        due: dict[int, tuple[str, int]] = {}
        for notice in found.notices:
            for pusher in told[notice.user_id]:
                if notice.pos > pusher.since:
                    waiting.append(_waiting(notice, pusher, now))
                    due.setdefault(pusher.pusher_nid, (pusher.gateway, self._due(pusher, now)))
        push_queue.enqueue(txn, waiting)
        if due:
            push_queue.add_work(txn, due)
        counted = {
            pusher.pusher_nid: (pusher.gateway, now + BADGE_DELAY_MS)
            for user_id in found.readers
            for pusher in told[user_id]
            if pusher.kind != kinds.EMAIL and pusher.badge != 0
        }
        if counted:
            push_queue.add_work(txn, counted, badge=True)

    def _due(self, pusher: PusherRow, now: int) -> int:
        if pusher.kind != kinds.EMAIL:
            return now
        earliest = (pusher.mailed_ts or 0) + (pusher.mail_pause or 0)
        return max(now + self._mail_delay, earliest)


def _waiting(notice: Notice, pusher: PusherRow, now: int) -> Waiting:
    place = (notice.pos, notice.room_nid, notice.event_nid)
    return Waiting(pusher.pusher_nid, *place, notice.tweaks, now)


def _notices(txn: Transaction, rows: Sequence[EventRow]) -> tuple[list[Notice], int]:
    """Whom events of rooms notify, and up to where these were looked at."""
    if not rows:
        return [], _ALL
    by_room: dict[int, list[Member]] = defaultdict(list)
    for member in notified.members(txn, {row.room_nid for row in rows}):
        by_room[member.room_nid].append(member)
    rows = [row for row in rows if row.room_nid in by_room]
    if not rows:
        return [], _ALL
    people = {member.user_id for members in by_room.values() for member in members}
    stored = push_rules.get_many(txn, people)
    ignored = account_data.ignored_by_users(txn, people)
    facts = facts_of(txn, rooms.get_many(txn, by_room.keys()))
    marks = {
        (mark.user_id, mark.pos): EventClass(mark.highlight + 1 if mark.notify else 0)
        for mark in notified.marks(txn, rows[0].pos or 0, rows[-1].pos or 0)
    }
    is_in = _Joined(txn, by_room)
    found: list[Notice] = []
    for row in rows:
        if len(found) >= MAX_NOTICES:
            return found, (row.pos or 0) - 1
        judged = Judged(txn, row, facts[row.room_nid])
        texts: dict[int, tuple[Actions, str]] = {}
        followers = _followers(txn, row, by_room[row.room_nid], facts[row.room_nid].room.room_id)
        for member in by_room[row.room_nid]:
            user_id, pos = member.user_id, row.pos or 0
            if user_id == row.sender or row.sender in ignored.get(user_id, ()):
                continue
            ruleset = stored.get(user_id)
            told = marks.get((user_id, pos))
            if told is None:
                told = EventClass(row.notify)
                if ruleset is not None:
                    told = told_by(row.notify, ruleset, facts[row.room_nid].room.room_id)
            if not told or not is_in.at(member, pos):
                continue
            actions = judged.actions(
                user_id, ruleset, member.displayname, told, follows=user_id in followers
            )
            if id(actions) not in texts:
                texts[id(actions)] = actions, encoded(tweaks(actions))
            text = texts[id(actions)][1]
            found.append(Notice(user_id, pos, row.room_nid, row.event_nid, text))
    return found, _ALL


def _followers(
    txn: Transaction, row: EventRow, members: Iterable[Member], room_id: str
) -> set[str]:
    """Those of the members who follow the thread that an event is in."""
    if row.thread_root is None:
        return set()
    people = [member.user_id for member in members]
    followed = thread_subscriptions.followed(txn, people, room_id, [row.thread_root])
    return {user_id for user_id, _ in followed}


class _Joined:
    """Whether people were in a room when something happened there."""

    def __init__(self, txn: Transaction, by_room: Mapping[int, Iterable[Member]]) -> None:
        self._txn = txn
        self._since: dict[tuple[int, str], int] = {}

    def at(self, member: Member, pos: int) -> bool:
        if member.pos < pos:
            return True
        # The newest member event may only be a new name.
        key = member.room_nid, member.user_id
        if key not in self._since:
            self._since[key] = notified.joined_since(self._txn, *key) or 0
        return self._since[key] < pos


def _invites(txn: Transaction, invites: Sequence[Invited]) -> list[Notice]:
    if not invites:
        return []
    people = {invite.user_id for invite in invites}
    stored = push_rules.get_many(txn, people)
    ignored = account_data.ignored_by_users(txn, people)
    rows = events.get_by_nids(txn, {invite.event_nid for invite in invites})
    found = []
    for invite in invites:
        user_id, row = invite.user_id, rows.get(invite.event_nid)
        if row is None or invite.sender in ignored.get(user_id, ()):
            continue
        if Invites(txn, user_id).hides(invite.sender):
            continue
        ruleset = stored.get(user_id) or Ruleset(user_id)
        actions = invite_actions(json.loads(row.json), ruleset)
        if actions:
            place = (invite.pos, invite.room_nid, invite.event_nid)
            found.append(Notice(user_id, *place, encoded(tweaks(actions))))
    return found


def encoded(found: JsonObject) -> str:
    """Tweaks as they are stored."""
    return json.dumps(found, separators=(",", ":"))
