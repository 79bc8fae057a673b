"""What a user was notified of, the newest first (client-server API, "Listing Notifications").

Nothing is kept for this: what notified somebody is found again from the classes and marks of
events (`homeserver.rooms.unread`), room by room, those with the newest events first, until a page
is full.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from twisted.internet.interfaces import IReactorTime

from homeserver.core.client_format import to_client
from homeserver.core.errors import invalid_param
from homeserver.core.event import Event
from homeserver.core.push_rules import Actions, EventClass, Ruleset, class_of
from homeserver.core.push_volume import Volume, heard, volume
from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.core.types import JsonObject
from homeserver.rooms.invite_blocking import Invites
from homeserver.rooms.notified import Judged, facts_of, invite_actions
from homeserver.rooms.view import RoomView
from storage import (
    account_data,
    events,
    memberships,
    notified,
    push_rules,
    rooms,
    thread_subscriptions,
    unread,
)
from storage.database import Database
from storage.events import EventRow
from storage.memberships import MembershipRow
from storage.state import StateStore
from storage.transaction import Transaction

MAX_PAGE = 100
PAGE = 20
_END = 2**62
_TOKEN = re.compile(r"n([0-9]{1,18})")


class Item(NamedTuple):
    """An event that notified the user."""

    pos: int
    row: EventRow
    told: EventClass


class Page(NamedTuple):
    """A page of notifications as clients see them, and the token of the next one."""

    notifications: list[JsonObject]
    next_token: str | None


class Notifications:
    """Lists what users were notified of."""

    def __init__(self, db: Database, states: StateStore, clock: IReactorTime) -> None:
        self._db = db
        self._states = states
        self._clock = clock

    async def page(
        self, user_id: str, token: str | None, limit: int | None, only: str | None
    ) -> Page:
        """A page. Raises MatrixError 400 M_INVALID_PARAM for a bad token or limit."""
        match = None if token is None else _TOKEN.fullmatch(token)
        if token is not None and match is None:
            raise invalid_param("from is not a token of this server.")
        if limit is not None and limit < 1:
            raise invalid_param("limit must be at least 1.")
        before = int(match[1]) if match else _END
        size = min(PAGE if limit is None else limit, MAX_PAGE)
        least = EventClass.HIGHLIGHT if only == "highlight" else EventClass.NOTIFY
        now_ms = int(self._clock.seconds() * 1000)

        def read(txn: Transaction) -> Page:
            return _Search(txn, self._states, user_id, least, now_ms).page(before, size)

        return await self._db.read(read)


@dataclass(slots=True)
class _Search:
    """One request."""

    txn: Transaction
    states: StateStore
    user_id: str
    least: EventClass
    now_ms: int

    def page(self, before: int, size: int) -> Page:
        ruleset = push_rules.get(self.txn, self.user_id)
        ignored = account_data.ignored_users(self.txn, self.user_id)
        found, end = self._find(ruleset, before, size)
        chosen = found[:size]
        if len(found) > size:
            end = chosen[-1].pos
        shown = self._joined(chosen, ruleset, ignored)
        for pos, entry in self._invites(ruleset, ignored):
            if end < pos < before or (pos == end and chosen):
                shown.append((pos, entry))
        shown.sort(key=lambda entry: -entry[0])
        return Page([entry for _, entry in shown], f"n{end}" if end > 0 else None)

    def _find(self, ruleset: Ruleset, before: int, size: int) -> tuple[list[Item], int]:
        """The newest items of all rooms, and the position down to which they are complete; 0: to
        the beginning."""
        found: list[Item] = []
        complete = 0
        rest = sorted(
            ((min(last, before - 1), nid, name) for nid, last, _, name in self._rooms()),
            reverse=True,
        )
        for last, room_nid, room_id in rest:
            if len(found) > size and found[size].pos >= last:
                break
            if last <= complete:
                break
            items, end = self._of_room(room_nid, volume(ruleset, room_id), before, size + 1)
            complete = max(complete, end)
            found = sorted([*found, *items], key=lambda item: -item.pos)
        return [item for item in found if item.pos >= complete], complete

    def _rooms(self) -> list[tuple[int, int, int, str]]:
        return unread.rooms_of(self.txn, self.user_id)

    def _of_room(
        self, room_nid: int, loudness: Volume, before: int, limit: int
    ) -> tuple[list[Item], int]:
        """The newest items of a room, and down to where these are all; 0: to the beginning."""
        if loudness is Volume.NOTHING:
            return [], 0
        since = notified.joined_since(self.txn, room_nid, self.user_id) or 0
        place = (room_nid, self.user_id, since, before)
        quiet = loudness is Volume.HIGHLIGHTS
        rows = notified.page(self.txn, *place, 2 if quiet else self.least, limit)
        marks = notified.marked_page(self.txn, *place, limit)
        ends = [list_[-1].pos or 0 for list_ in (rows,) if len(list_) == limit]
        ends += [marks[-1][1].pos] if len(marks) == limit else []
        items = {row.pos or 0: Item(row.pos or 0, row, heard(loudness, row.notify)) for row in rows}
        for row, mark in marks:
            told = EventClass(mark.highlight + 1 if mark.notify else 0)
            items[mark.pos] = Item(mark.pos, row, told)
        end = max(ends, default=0)
        return [item for item in items.values() if item.told >= self.least and item.pos >= end], end

    def _joined(
        self, chosen: Sequence[Item], ruleset: Ruleset, ignored: frozenset[str]
    ) -> list[tuple[int, JsonObject]]:
        nids = {item.row.room_nid for item in chosen}
        facts = facts_of(self.txn, rooms.get_many(self.txn, nids))
        views = {
            nid: RoomView(self.txn, self.states, fact.room, self.user_id)
            for nid, fact in facts.items()
        }
        shown = []
        for item in chosen:
            row = item.row
            if row.sender in ignored or row.sender == self.user_id:
                continue
            seen = views[row.room_nid].visible([row])
            if not seen:
                continue
            name = memberships.get(self.txn, row.room_nid, self.user_id)
            judged = Judged(self.txn, row, facts[row.room_nid])
            room_id = facts[row.room_nid].room.room_id
            roots = [row.thread_root] if row.thread_root is not None else []
            actions = judged.actions(
                self.user_id,
                ruleset,
                name.displayname if name else None,
                item.told,
                follows=bool(
                    roots
                    and thread_subscriptions.followed(self.txn, [self.user_id], room_id, roots)
                ),
            )
            [event] = views[row.room_nid].render(seen, self.now_ms, room_id=False)
            is_read = unread.is_read(self.txn, row, self.user_id)
            entry = _entry(actions, event, room_id, is_read)
            shown.append((item.pos, entry))
        return shown

    def _invites(self, ruleset: Ruleset, ignored: frozenset[str]) -> list[tuple[int, JsonObject]]:
        """Invites that wait for an answer."""
        found = []
        rows = memberships.of_user(self.txn, self.user_id, ["invite"])
        known = rooms.get_many(self.txn, {row.room_nid for row in rows})
        invites = events.get_by_nids(self.txn, {row.event_nid for row in rows})
        blocking = Invites(self.txn, self.user_id) if rows else None
        for member in rows:
            row, room = invites.get(member.event_nid), known.get(member.room_nid)
            if row is None or room is None or member.sender in ignored:
                continue
            if blocking is not None and blocking.hides(member.sender):
                continue
            actions = invite_actions(json.loads(row.json), ruleset)
            if class_of(actions) >= self.least:
                event = Event.from_json(row.json, ROOM_VERSIONS[room.version], row.event_id)
                found.append((member.pos, self._invite(event, actions, member, room.room_id)))
        return found

    def _invite(
        self, event: Event, actions: Actions, member: MembershipRow, room_id: str
    ) -> JsonObject:
        shown = to_client(event, now_ms=self.now_ms, room_id=False, membership="invite")
        return _entry(actions, shown, room_id, False)


def _entry(actions: Actions, event: JsonObject, room_id: str, is_read: bool) -> JsonObject:
    return {
        "actions": list(actions),
        "event": event,
        "read": is_read,
        "room_id": room_id,
        "ts": event["origin_server_ts"],
    }
