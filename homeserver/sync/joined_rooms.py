"""The rooms that the user is in, in the answer of `/sync`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from homeserver.core import sticky
from homeserver.core.types import JsonObject
from homeserver.sync import ahead, room_section, shown_section
from homeserver.sync.request import Snapshot, nothing
from homeserver.sync.streams import account_data as account_data_stream
from homeserver.sync.streams import receipts as receipts_stream
from homeserver.sync.streams import unread as unread_stream
from homeserver.web.slicing import encode_list
from storage import receipts, user_news
from storage.events import EventRow
from storage.user_news import JoinedRoom, RoomThen, is_after

_FEW = 10
"""Events that are encoded with the answer."""
_FEW_ROOMS = 20
"""Rooms of which events are encoded with the answer."""
_RECEIPT = "m.receipt"


def read_joined(
    snapshot: Snapshot,
    here: Mapping[int, JoinedRoom],
    newly: Collection[int],
    stuck: Mapping[int, Sequence[EventRow]],
) -> JsonObject:
    """The sections of the rooms that have news, by room ID.

    Parameters: `here`, the rooms that the user is in, at least those with news; `newly`, those of
    them that the user was not in all the time since the token; `stuck`, sticky events that are
    new to the client.
    """
    return _Joined(snapshot, here, newly, stuck).read()


class _Joined:
    """One computation."""

    def __init__(
        self,
        snapshot: Snapshot,
        here: Mapping[int, JoinedRoom],
        newly: Collection[int],
        stuck: Mapping[int, Sequence[EventRow]],
    ) -> None:
        self._snapshot = snapshot
        self._request = snapshot.request
        self._here = here
        self._newly = newly
        self._stuck = stuck
        self._sections: dict[int, JsonObject] = {}
        self._rooms: dict[int, RoomThen] = {}
        # Of everything in these rooms the client knows nothing yet.
        self._fresh = set(here if snapshot.request.since is None else newly)

    def read(self) -> JsonObject:
        request = self._request
        busy = self._busy()
        ephemeral = self._receipts()
        data = self._account_data()
        own = self._read_by_user()
        needed = busy | ephemeral.keys() | data.keys() | own | self._stuck.keys()
        known = self._snapshot.then
        self._rooms = known | user_news.rooms_since(
            self._snapshot.txn, request.user_id, needed - known.keys(), request.since
        )
        self._read_busy(list(busy))
        self._add(ephemeral, data)
        self._add_sticky()
        self._add_counts(own)
        self._encode()
        return {self._here[nid].room_id: section for nid, section in self._sections.items()}

    def _encode(self) -> None:
        """Encode what is large, which is not to be done in the reactor."""
        few = _FEW if len(self._sections) <= _FEW_ROOMS else 0
        for section in self._sections.values():
            for name in ("timeline", "state", "state_after"):
                events = section.get(name, {}).get("events")
                if isinstance(events, list) and len(events) > few:
                    section[name]["events"] = encode_list(events)

    def _read_busy(self, busy: Sequence[int]) -> None:
        busy = self._read_kept(busy)
        for start in range(0, len(busy), ahead.AT_ONCE):
            part = busy[start : start + ahead.AT_ONCE]
            fresh = [self._rooms[nid] for nid in part if nid in self._fresh]
            snapshot = ahead.with_rooms(self._snapshot, fresh)
            for nid in part:
                since = None if nid in self._fresh else self._request.since
                section = room_section.joined(snapshot, self._rooms[nid], since)
                if section is not None:
                    self._sections[nid] = section

    def _read_kept(self, busy: Sequence[int]) -> Sequence[int]:
        """Take what is kept in memory of rooms that the client is told of as a whole; returns the
        other rooms."""
        kept = self._snapshot.kept
        if kept is None or not shown_section.suits(self._snapshot):
            return busy
        here = [nid for nid in busy if nid not in self._stuck]
        for start in range(0, len(here), shown_section.AT_ONCE):
            part = [self._rooms[nid] for nid in here[start : start + shown_section.AT_ONCE]]
            self._sections |= shown_section.read(self._snapshot, kept, part)
        left = [nid for nid in busy if nid not in self._sections]
        kept.count("memory", len(self._sections))
        kept.count("general", len(left))
        return left

    def _busy(self) -> set[int]:
        since = self._request.since
        if since is None or self._request.full_state:
            return set(self._here)
        return {nid for nid, room in self._here.items() if room.last_pos > since} | set(self._newly)

    # What is not in the log of events

    def _receipts(self) -> dict[int, JsonObject]:
        request, txn, now = self._request, self._snapshot.txn, self._snapshot.now
        if not request.filter.room.ephemeral.matches(_RECEIPT):
            return {}
        known = {
            nid
            for nid, room in self._here.items()
            if nid not in self._fresh and is_after(room.last_receipt, request.since)
        }
        found = receipts_stream.room_changes(txn, request.user_id, request.since, now, known)
        if self._fresh:
            found |= receipts_stream.room_changes(txn, request.user_id, None, now, self._fresh)
        return found

    def _account_data(self) -> dict[int, list[JsonObject]]:
        request, txn, now = self._request, self._snapshot.txn, self._snapshot.now
        wanted = request.filter.room.account_data
        has_changed = is_after(self._snapshot.newest.account_data, request.since)
        if wanted.matches_nothing or not (has_changed or self._newly):
            return {}
        # One user's: what is left out is not worth a list of all rooms in the query.
        all_ = account_data_stream.room_changes(txn, request.user_id, request.since, now)
        if self._newly and request.since is not None:
            all_ |= account_data_stream.room_changes(txn, request.user_id, None, now, self._newly)
        chosen = {
            nid: [event for event in events if wanted.matches(event["type"])]
            for nid, events in all_.items()
            if nid in self._here
        }
        return {nid: events for nid, events in chosen.items() if events}

    def _read_by_user(self) -> set[int]:
        """Rooms whose unread counts the user changed with a receipt."""
        request = self._request
        if request.since is None or not is_after(self._snapshot.newest.own_receipt, request.since):
            return set()
        found = receipts.rooms_of_user(
            self._snapshot.txn, request.user_id, request.since, self._snapshot.now
        )
        return found & self._here.keys()

    def _add(
        self, ephemeral: Mapping[int, JsonObject], data: Mapping[int, list[JsonObject]]
    ) -> None:
        wanted = self._request.filter.room
        for nid, event in ephemeral.items():
            if wanted.ephemeral.matches_room(self._here[nid].room_id):
                self._section(nid)["ephemeral"] = {"events": [event]}
        for nid, events in data.items():
            if wanted.account_data.matches_room(self._here[nid].room_id):
                self._section(nid)["account_data"] = {"events": events}

    def _add_sticky(self) -> None:
        """Sticky events that are not in the timeline (MSC4354)."""
        for nid, rows in self._stuck.items():
            shown = self._sections.get(nid, {}).get("timeline", {}).get("events", [])
            there = {event.get("event_id") for event in shown}
            left = [row for row in rows if row.event_id not in there]
            if left:
                events = room_section.sticky_events(self._snapshot, self._rooms[nid], left)
                self._section(nid)[sticky.KEY] = {"events": events}

    def _section(self, nid: int) -> JsonObject:
        return self._sections.setdefault(nid, nothing(self._request))

    def _add_counts(self, own: Collection[int]) -> None:
        for nid in own:
            self._section(nid)
        snapshot = self._snapshot
        concerned = [self._rooms[nid] for nid in self._sections]
        counts = unread_stream.counts(
            snapshot.txn,
            self._request.user_id,
            concerned,
            snapshot.newest,
            snapshot.ignored,
            snapshot.volumes,
        )
        snapshot.counts.update(counts)
        for nid, section in self._sections.items():
            room_section.unread(section, counts[nid], self._request.filter.room)
        if snapshot.counts_messages:
            found = unread_stream.messages(
                snapshot.txn, self._request.user_id, concerned, snapshot.ignored
            )
            for nid, section in self._sections.items():
                section["org.matrix.msc2654.unread_count"] = found[nid]
