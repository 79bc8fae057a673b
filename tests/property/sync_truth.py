"""The rooms of a server as its log of events says, replayed in the most literal way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from storage.transaction import Transaction

Json = dict[str, Any]
Key = tuple[str, str]
MEMBER = "m.room.member"
VISIBILITY: Key = ("m.room.history_visibility", "")


@dataclass
class Entry:
    """An event and the room's state before and after it, as events by key."""

    pos: int
    event_id: str
    type: str
    state_key: str | None
    sender: str
    content: Json
    redacted: bool
    nid: int
    before: dict[Key, Entry] = field(repr=False)
    after: dict[Key, Entry] = field(repr=False)


@dataclass
class RoomLog:
    """One room's events, the oldest first."""

    room_id: str
    nid: int
    entries: list[Entry] = field(default_factory=list)
    by_id: dict[str, Entry] = field(default_factory=dict)

    @property
    def state(self) -> dict[Key, Entry]:
        """The current state."""
        return self.entries[-1].after

    def state_ids(self) -> dict[Key, str]:
        """The current state's event IDs."""
        return {key: entry.event_id for key, entry in self.state.items()}

    def membership(self, user_id: str, state: Mapping[Key, Entry] | None = None) -> str:
        """The membership in a state, the current one by default; "leave" where there is none."""
        entry = (self.state if state is None else state).get((MEMBER, user_id))
        return "leave" if entry is None else str(entry.content.get("membership"))

    def members(self, *wanted: str) -> set[str]:
        """Users who have one of these memberships now."""
        users = {key[1] for key in self.state if key[0] == MEMBER}
        return {user for user in users if self.membership(user) in wanted}

    def last_stay(self, user_id: str) -> tuple[int | None, int | None]:
        """Positions of the user's last join and of what ended it."""
        since = until = None
        for entry in self.entries:
            old = self.membership(user_id, entry.before)
            new = self.membership(user_id, entry.after)
            if new == "join" != old:
                since, until = entry.pos, None
            elif old == "join" != new:
                until = entry.pos
        return since, until

    def visible(self, user_id: str) -> list[Entry]:
        """The events that history visibility lets the user see (client-server API, "Room History
        Visibility", server behaviour), and ends of invites and knocks that were shown."""
        found = []
        joined_later = self.membership(user_id) == "join"
        for entry in reversed(self.entries):
            kinds = {_visibility(entry.before), _visibility(entry.after)}
            old = self.membership(user_id, entry.before)
            new = self.membership(user_id, entry.after)
            allowed = "world_readable" in kinds or "join" in (old, new)
            allowed |= "shared" in kinds and joined_later
            allowed |= "invited" in kinds and "invite" in (old, new)
            allowed |= old in ("invite", "knock") and new in ("leave", "ban")
            if allowed:
                found.append(entry)
            joined_later |= "join" in (old, new)
        return found[::-1]


def _visibility(state: Mapping[Key, Entry]) -> str:
    entry = state.get(VISIBILITY)
    value = entry.content.get("history_visibility") if entry is not None else None
    known = ("world_readable", "shared", "invited", "joined")
    return value if isinstance(value, str) and value in known else "shared"


def read_logs(txn: Transaction) -> dict[str, RoomLog]:
    """All rooms by ID."""
    logs: dict[str, RoomLog] = {}
    for room_id, nid, pos, event_id, event_nid, text, redacted_by in txn.all(
        "SELECT r.room_id, r.room_nid, e.pos, e.event_id, e.event_nid, e.json, e.redacted_by"
        " FROM events e JOIN rooms r ON r.room_nid = e.room_nid WHERE e.status = 0 ORDER BY e.pos"
    ):
        log = logs.setdefault(room_id, RoomLog(room_id, nid))
        pdu = json.loads(text)
        before = log.entries[-1].after if log.entries else {}
        entry = Entry(
            pos,
            event_id,
            pdu["type"],
            pdu.get("state_key"),
            pdu["sender"],
            pdu["content"],
            redacted_by is not None,
            event_nid,
            before,
            before,
        )
        if entry.state_key is not None:
            entry.after = {**before, (entry.type, entry.state_key): entry}
        log.entries.append(entry)
        log.by_id[event_id] = entry
    return logs
