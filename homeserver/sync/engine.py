"""`/sync`: positions in, answer out (client-server API, "Syncing").

1. Everything durable is read in one transaction, whose snapshot is at one position of the clock:
   the answer has all up to it and nothing after it, and `next_batch` names it.
2. What is not durable (typing, presence) is read next to it, by a position of its own.
3. Only rooms in which something happened are looked at, unless everything is asked for, and only
   tables that have news: one statement tells (`storage.user_news`).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from homeserver.core.types import JsonObject
from homeserver.rooms.shown_rooms import ShownRooms
from homeserver.sync import gone_rooms
from homeserver.sync.joined_rooms import read_joined
from homeserver.sync.lazy_members import NOTHING, SentMembers
from homeserver.sync.notifier import Tally, tally
from homeserver.sync.other_rooms import read_others
from homeserver.sync.request import Snapshot, SyncRequest
from homeserver.sync.shared import SharedReads
from homeserver.sync.streams import account_data as account_data_stream
from homeserver.sync.streams import device_lists as device_lists_stream
from homeserver.sync.streams import profiles as profiles_stream
from homeserver.sync.streams import sticky as sticky_stream
from homeserver.sync.streams import to_device as to_device_stream
from storage import account_data, memberships, user_news
from storage.database import Database
from storage.memberships import MembershipChange
from storage.state import StateStore
from storage.transaction import NoStatements, StatementNeeded, Transaction
from storage.user_news import JoinedRoom, Newest, is_after

ALWAYS_TOLD = ("device_one_time_keys_count", "device_unused_fallback_key_types")
"""What is in every answer. A change of it is hinted at."""
MAX_COUNTS = 500
"""Rooms of which is remembered how many events a device was told are unread."""
MAX_NEW_PEOPLE = 500
"""Members of one newly joined room whose presence is sent at once."""


@dataclass(frozen=True, slots=True)
class Durable:
    """What the log says, and what the rest of the answer needs to know."""

    now: int
    answer: JsonObject
    joined: Mapping[int, JoinedRoom]
    """The rooms that the user is in and the filter wants; only those with news if
    `SyncEngine.read` was not asked for all."""
    newly_joined: Collection[int]
    """Those of them in which the user was not all the time since the token."""
    new_people: frozenset[str]
    """Members of the rooms that are new to the client."""
    is_empty: bool
    to_device_reached: int | None
    """More messages to the device wait than the answer has: this is the position of its last."""
    sticky_reached: int | None
    """The same of sticky events."""
    has_acknowledged: bool
    """The token says that messages arrived: `acknowledge` deletes them."""
    is_settled: bool
    """Who comes with the token of this answer has everything up to it, and nothing to confirm."""
    counts: Mapping[int, Tally]
    """The unread counts of some rooms that the answer has."""
    ignored: frozenset[str]
    moved_at: int
    """The position at which the user last came into a room or out of one."""


class SyncEngine:
    """Computes the durable part of answers."""

    def __init__(self, states: StateStore, kept: ShownRooms | None = None) -> None:
        self._states = states
        self._kept = kept
        self.sent_members: SentMembers[int] = SentMembers()
        """Which member events lazy-loading devices have."""
        self.counts_messages = False
        """Whether clients are told how many messages are unread (MSC2654)."""
        self._shared = SharedReads()
        self.caches = (*self.sent_members.caches, *self._shared.caches)

    async def look(
        self, db: Database, request: SyncRequest, now_ms: int, *, all_rooms: bool
    ) -> Durable:
        """As `read`; without a thread if nothing seems to be new, and is not."""
        if not all_rooms and request.since is not None and db.positions.applied <= request.since:
            newest = await db.query(user_news.newest, request.user_id, request.device_id)
            try:
                return self._durable(NoStatements(db.dialect), newest, request, now_ms, all_rooms)
            except StatementNeeded:
                pass  # Something is new, or was not confirmed.
        return await db.read(self.read, request, now_ms, all_rooms=all_rooms)

    def read(
        self, txn: Transaction, request: SyncRequest, now_ms: int, *, all_rooms: bool = True
    ) -> Durable:
        """What happened since the token of the request. Runs in a database thread.

        Parameters: `all_rooms`, whether `Durable.joined` is to have rooms without news, too.
        """
        newest = user_news.newest(txn, request.user_id, request.device_id)
        return self._durable(txn, newest, request, now_ms, all_rooms)

    def _durable(
        self, txn: Transaction, newest: Newest, request: SyncRequest, now_ms: int, all_rooms: bool
    ) -> Durable:
        now = newest.now
        is_ahead = request.since is not None and request.since > now
        if is_ahead:
            # The token is from before a backup was restored: the client goes on with the present.
            request = request._replace(since=now, to_device_since=now, sticky_since=now)
        user_id, device_id, since = request.user_id, request.device_id, request.since
        lazy = request.filter.room.lazy_load_members
        snapshot = Snapshot(
            txn,
            self._states,
            request,
            newest,
            now_ms,
            account_data.ignored_by(user_id, json.loads(newest.ignored or "{}")),
            self.sent_members.known(user_id, device_id, since) if lazy else NOTHING,
            self.counts_messages,
            shared=self._shared,
            kept=self._kept,
        )
        durable = _read(snapshot, all_rooms)
        if lazy:
            sent, dropped = snapshot.sent_members, snapshot.dropped_members
            self.sent_members.sent(
                user_id, device_id, since, now, frozenset(sent), frozenset(dropped)
            )
        return replace(durable, is_empty=False, is_settled=False) if is_ahead else durable


def acknowledge(txn: Transaction, request: SyncRequest) -> None:
    """Delete the messages that the device's token says it has got."""
    if request.to_device_since is not None:
        to_device_stream.acknowledge(
            txn, request.user_id, request.device_id, request.to_device_since
        )


def _read(snapshot: Snapshot, all_rooms: bool) -> Durable:
    txn, request = snapshot.txn, snapshot.request
    joined = _joined(snapshot, all_rooms)
    wanted_room = request.filter.room
    here = joined
    if wanted_room.rooms is not None or wanted_room.not_rooms:
        here = {n: room for n, room in joined.items() if wanted_room.matches_room(room.room_id)}
    changes = _own_changes(snapshot)
    newly = {
        change.room_nid
        for change in changes
        if change.room_nid in here and change.membership == "join" != change.previous
    }
    stuck = sticky_stream.find(snapshot, here, newly)
    sections = {
        "join": read_joined(snapshot, here, newly, stuck.rooms),
        **read_others(snapshot, joined, changes),
    }
    gone_rooms.add(snapshot, sections)
    rooms = {name: section for name, section in sections.items() if section}
    answer: JsonObject = {"rooms": rooms} if rooms else {}
    wanted = request.filter.account_data
    if not wanted.matches_nothing and _has_account_data(snapshot):
        data = account_data_stream.global_changes(txn, request.user_id, request.since, snapshot.now)
        data = [event for event in data if wanted.matches(event["type"])]
        if data:
            answer["account_data"] = {"events": data}
    reached, has_acknowledged = _add_to_device(snapshot, answer)
    _add_device_lists(snapshot, answer)
    users = profiles_stream.for_sync(snapshot)
    if users:
        answer["org.matrix.msc4429.users"] = users
    is_empty = not answer
    counts, unused_fallback = snapshot.newest.one_time_keys, snapshot.newest.unused_fallback
    answer["device_one_time_keys_count"] = json.loads(counts or "{}")
    answer["device_unused_fallback_key_types"] = json.loads(unused_fallback or "[]")
    return Durable(
        now=snapshot.now,
        answer=answer,
        joined=here,
        newly_joined=newly,
        new_people=_people(snapshot, newly),
        is_empty=is_empty,
        to_device_reached=reached,
        sticky_reached=stuck.reached,
        has_acknowledged=has_acknowledged,
        is_settled=snapshot.newest.first_message is None and stuck.reached is None,
        counts=_counts(snapshot),
        ignored=snapshot.ignored,
        moved_at=max(snapshot.newest.membership or 0, snapshot.newest.gone or 0),
    )


def _counts(snapshot: Snapshot) -> dict[int, Tally]:
    counts, volumes = snapshot.counts, snapshot.volumes
    return {nid: tally(counts[nid], volumes[nid]) for nid in list(counts)[:MAX_COUNTS]}


def _joined(snapshot: Snapshot, all_rooms: bool) -> dict[int, JoinedRoom]:
    """The rooms that the user is in; those with news if that is enough."""
    request, newest = snapshot.request, snapshot.newest
    since = None if all_rooms or request.full_state else request.since
    # Rooms that were joined or left, and rooms of which account data changed, may have no event.
    if is_after(newest.membership, since) or is_after(newest.account_data, since):
        since = None
    if sticky_stream.is_behind(request):
        since = None
    if since is not None and since >= newest.now:
        return {}
    if since is None:
        return user_news.joined_rooms(snapshot.txn, request.user_id)
    found = user_news.joined_with_news(
        snapshot.txn, request.user_id, since, receipts=is_after(newest.anybodys_receipt, since)
    )
    snapshot.then.update((nid, room.then) for nid, room in found.items())
    return {nid: room.joined for nid, room in found.items()}


def _own_changes(snapshot: Snapshot) -> list[MembershipChange]:
    since = snapshot.request.since
    if since is None or not is_after(snapshot.newest.membership, since):
        return []
    return memberships.changes_of_user(snapshot.txn, snapshot.request.user_id, since, snapshot.now)


def _has_account_data(snapshot: Snapshot) -> bool:
    newest, since = snapshot.newest, snapshot.request.since
    return is_after(newest.account_data, since) or is_after(newest.push_rules, since)


def _people(snapshot: Snapshot, room_nids: Iterable[int]) -> frozenset[str]:
    found: set[str] = set()
    for nid in room_nids:
        found.update(
            memberships.first_others(
                snapshot.txn, nid, snapshot.request.user_id, ["join"], MAX_NEW_PEOPLE
            )
        )
    return frozenset(found)


def _add_to_device(snapshot: Snapshot, answer: JsonObject) -> tuple[int | None, bool]:
    """Messages to the device: see `Durable.to_device_reached` and `has_acknowledged`."""
    txn, request = snapshot.txn, snapshot.request
    user_id, device_id, since = request.user_id, request.device_id, request.to_device_since
    first = snapshot.newest.first_message
    if first is None:
        return None, False
    messages, reached = to_device_stream.messages(txn, user_id, device_id, since, snapshot.now)
    if messages:
        answer["to_device"] = {"events": messages}
    return reached, since is not None and first <= since


def _add_device_lists(snapshot: Snapshot, answer: JsonObject) -> None:
    newest, since = snapshot.newest, snapshot.request.since
    if since is None or not (
        is_after(newest.anybodys_devices, since) or is_after(newest.anybodys_membership, since)
    ):
        return
    changed, left = device_lists_stream.changes(
        snapshot.txn, snapshot.request.user_id, since, newest.now
    )
    if changed or left:
        answer["device_lists"] = {"changed": changed, "left": left}
