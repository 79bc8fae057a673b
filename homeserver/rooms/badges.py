"""The number on the icon of an app: what a user has not read, in all rooms (push gateway API,
"counts").

A room is counted again only when something happened in it, or the user read or changed something:
so that a push to somebody who is in many rooms costs one statement, not one for each room.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from homeserver.cache import Cache
from homeserver.core.push_rules import Ruleset
from homeserver.core.push_volume import Volume, volume
from storage import account_data, notified, push_rules, receipts, unread, user_news
from storage.notified import Call
from storage.transaction import Transaction
from storage.unread import Counts
from storage.user_news import RoomThen

MAX_CALLS = 200
CALL_LIFETIME_MS = 60_000
"""How long a call rings that does not say it."""


class Badge(NamedTuple):
    """`unread`: messages, or rooms with any, with invites; `missed_calls`: of the messages."""

    unread: int
    missed_calls: int


@dataclass(slots=True)
class _Known:
    """The counts of one user, by room, with what they were made of."""

    made_of: object
    rooms: dict[int, tuple[tuple[int, int], Counts]] = field(default_factory=dict)


class Badges:
    """Counts for badges. Used from several threads. `by_room`: rooms count, not messages."""

    def __init__(self, *, by_room: bool = False) -> None:
        self._by_room = by_room
        self._lock = threading.Lock()
        self._known: Cache[str, _Known] = Cache("badges", _size, share=0.1)
        self.caches = (self._known,)

    def count(self, txn: Transaction, user_id: str, now_ms: int) -> Badge:
        """A user's badge."""
        counts = self._counts(txn, user_id)
        loud = {nid: found for nid, found in counts.items() if found.total.notify > 0}
        invites = unread.notifying_invites(txn, user_id)
        if self._by_room:
            total = len(loud) + invites
        else:
            total = sum(found.total.notify for found in loud.values()) + invites
        missed = _missed(txn, user_id, loud, now_ms) if loud else 0
        return Badge(total, missed)

    def _counts(self, txn: Transaction, user_id: str) -> dict[int, Counts]:
        stored = push_rules.get_versioned(txn, user_id)
        ruleset = stored.ruleset
        ignored = account_data.ignored_users(txn, user_id)
        made_of = (stored.pos, ignored)
        with self._lock:
            known = self._known.get(user_id)
        old = known.rooms if known is not None and known.made_of == made_of else {}
        rooms: dict[int, tuple[tuple[int, int], Counts]] = {}
        stale: dict[int, tuple[int, int]] = {}
        for room_nid, last_pos, receipt, room_id in unread.rooms_of(txn, user_id):
            if stored.pos is not None and volume(ruleset, room_id) is Volume.NOTHING:
                continue
            version = (last_pos, receipt)
            before = old.get(room_nid)
            if before is not None and before[0] == version:
                rooms[room_nid] = before
            else:
                stale[room_nid] = version
        if stale:
            for room_nid, counts in _count(txn, user_id, stale, ruleset, ignored).items():
                rooms[room_nid] = stale[room_nid], counts
        with self._lock:
            self._known[user_id] = _Known(made_of, rooms)
        return {room_nid: counts for room_nid, (_, counts) in rooms.items()}


def _size(user_id: str, known: _Known) -> int:
    return 300 + len(user_id) + 500 * len(known.rooms)


def _count(
    txn: Transaction,
    user_id: str,
    stale: Mapping[int, object],
    ruleset: Ruleset,
    ignored: frozenset[str],
) -> dict[int, Counts]:
    read = receipts.read_positions(txn, user_id, stale.keys())
    found = {}
    for room_nid, room in _rooms(txn, user_id, list(stale)).items():
        positions: dict[str | None, int] = {
            thread_id or None: pos for thread_id, pos in read.get(room_nid, {}).items()
        }
        loudness = volume(ruleset, room.row.room_id)
        found[room_nid] = unread.counts(
            txn, room.row, user_id, room.joined_at or 0, positions, loudness, ignored
        )
    return found


def _rooms(txn: Transaction, user_id: str, room_nids: Sequence[int]) -> dict[int, RoomThen]:
    found: dict[int, RoomThen] = {}
    for start in range(0, len(room_nids), 200):
        found |= user_news.rooms_since(txn, user_id, room_nids[start : start + 200], None)
    return found


def _missed(txn: Transaction, user_id: str, loud: Mapping[int, Counts], now_ms: int) -> int:
    """Calls that rang and were not taken by the user, and are unread."""
    calls = notified.calls(txn, list(loud), MAX_CALLS)
    if not calls:
        return 0
    read = receipts.read_positions(txn, user_id, {call.room_nid for call in calls})
    missed: set[tuple[int, str]] = set()
    over: set[tuple[int, str]] = set()
    for call in reversed(calls):
        content = json.loads(call.json).get("content")
        call_id = content.get("call_id") if isinstance(content, dict) else None
        if not isinstance(call_id, str):
            continue
        key = call.room_nid, call_id
        if call.type != "m.call.invite":
            if call.sender == user_id:
                missed.discard(key)
                over.add(key)
            continue
        positions = read.get(call.room_nid, {})
        upto = max(positions.get("", 0), positions.get("main", 0))
        is_ringing = now_ms < call.origin_server_ts + _lifetime(content, call)
        if call.sender != user_id and call.pos > upto and not is_ringing and key not in over:
            missed.add(key)
    return len(missed)


def _lifetime(content: Mapping[str, object], call: Call) -> int:
    lifetime = content.get("lifetime")
    if isinstance(lifetime, int) and not isinstance(lifetime, bool) and 0 <= lifetime < 10**7:
        return lifetime
    return CALL_LIFETIME_MS
