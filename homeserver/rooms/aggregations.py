"""Bundled aggregations (client-server API, "Aggregations of child events").

1. State events have none; redacted events have none of their replacements.
2. `m.replace`: the newest valid replacement, whole. Valid are those by the same sender and of the
   same type that have `m.new_content` (encrypted ones may have it where nobody can look), of
   events that are no replacements themselves.
3. `m.thread`: number of events, the latest of them (with its own aggregations), and whether the
   reader takes part. Only events without a relation of their own are roots of threads.
4. `m.reference`: the IDs of the referring events.
5. Children that the reader may not see, or whose senders they ignore, do not count.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from homeserver.core.types import JsonObject
from homeserver.core.visibility import FOREVER
from homeserver.rooms.view import RoomView, Seen
from storage import relations
from storage.relations import GRAPH_ORDER, Tally

MAX_REFERENCES = 200
"""References that are listed, the newest ones."""
_EDITS = 5
"""Newest replacements that are looked at for a valid one that the reader may see."""
_LATEST = 5
"""Newest events of a thread that are looked at for one that the reader may see."""
_COUNTED = 500
"""Newest events of a thread that are counted one by one for readers who are not in the room."""

_Tallies = dict[tuple[str, str], Tally]


def bundle(
    view: RoomView,
    seen: Sequence[Seen],
    now_ms: int,
    *,
    ignored: Collection[str] = (),
    room_id: bool = True,
) -> dict[str, JsonObject]:
    """`unsigned.m.relations` of those of the events that have any, by event ID.

    Parameters: `ignored`, users whose events do not count for the reader; `room_id`, False where
    the response implies the room.
    """
    return _Bundler(view, now_ms, ignored, room_id).bundle(seen, threads=True)


class _Bundler:
    def __init__(
        self, view: RoomView, now_ms: int, ignored: Collection[str], room_id: bool
    ) -> None:
        self._view = view
        self._now_ms = now_ms
        self._ignored = ignored
        self._room_id = room_id

    def bundle(self, seen: Sequence[Seen], *, threads: bool) -> dict[str, JsonObject]:
        parents = {item.row.event_id: item for item in seen if item.row.state_key is None}
        view = self._view
        tallies = relations.tallies(
            view.txn, view.room.room_nid, parents.keys(), view.reader_id, self._ignored
        )
        if not tallies:
            return {}
        found: dict[str, JsonObject] = {}
        replaced = [
            name
            for name in _with(tallies, "m.replace")
            if parents[name].row.redacted_by is None
            and parents[name].row.rel_type != "m.replace"
            and parents[name].row.sender not in self._ignored
        ]
        for name, replacement in self._replacements(replaced).items():
            found.setdefault(name, {})["m.replace"] = replacement
        for name, references in self._references(_with(tallies, "m.reference")).items():
            found.setdefault(name, {})["m.reference"] = references
        if threads:
            roots = [
                name for name in _with(tallies, "m.thread") if parents[name].row.rel_type is None
            ]
            for name, thread in self._threads(roots, parents, tallies).items():
                found.setdefault(name, {})["m.thread"] = thread
        return found

    def _replacements(self, parents: Sequence[str]) -> dict[str, JsonObject]:
        view = self._view
        rows = relations.replacements(view.txn, view.room.room_nid, parents, _EDITS)
        chosen: dict[str, Seen] = {}
        for item in view.visible([row for group in rows.values() for row in group]):
            # Newest first.
            if _is_replacement(item):
                chosen.setdefault(item.row.relates_to or "", item)
        shown = view.render(list(chosen.values()), self._now_ms, room_id=self._room_id)
        return dict(zip(chosen, shown, strict=True))

    def _references(self, parents: Sequence[str]) -> dict[str, JsonObject]:
        view = self._view
        rows = relations.newest(
            view.txn,
            view.room.room_nid,
            parents,
            "m.reference",
            GRAPH_ORDER,
            MAX_REFERENCES,
            self._ignored,
        )
        chunks: dict[str, list[JsonObject]] = {}
        for item in reversed(view.visible([row for group in rows.values() for row in group])):
            chunk = chunks.setdefault(item.row.relates_to or "", [])
            chunk.append({"event_id": item.row.event_id})
        return {name: {"chunk": chunk} for name, chunk in chunks.items()}

    def _threads(
        self, roots: Sequence[str], parents: dict[str, Seen], tallies: _Tallies
    ) -> dict[str, JsonObject]:
        view = self._view
        there = view.stay.joined_until == FOREVER
        rows = relations.newest(
            view.txn,
            view.room.room_nid,
            roots,
            "m.thread",
            GRAPH_ORDER,
            _LATEST if there else _COUNTED,
            self._ignored,
        )
        latest: dict[str, Seen] = {}
        counts: dict[str, int] = {}
        for item in view.visible([row for group in rows.values() for row in group]):
            root = item.row.relates_to or ""
            latest.setdefault(root, item)
            counts[root] = counts.get(root, 0) + 1
        nested = self.bundle(list(latest.values()), threads=False)
        shown = view.render(
            list(latest.values()), self._now_ms, room_id=self._room_id, relations=nested
        )
        threads: dict[str, JsonObject] = {}
        for root, event in zip(latest, shown, strict=True):
            tally = tallies[(root, "m.thread")]
            own = parents[root].row.sender == view.reader_id
            threads[root] = {
                "latest_event": event,
                "count": tally.total if there else counts[root],
                "current_user_participated": own or tally.own,
            }
        return threads


def _with(tallies: _Tallies, rel_type: str) -> list[str]:
    return [parent for parent, kind in tallies if kind == rel_type]


def _is_replacement(item: Seen) -> bool:
    if item.row.type == "m.room.encrypted":
        return True
    return isinstance(item.event.content.get("m.new_content"), dict)
