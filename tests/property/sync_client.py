"""A client that keeps what `/sync` tells it, as the specification says that clients should."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from tests.property.sync_truth import MEMBER, Entry, Key, RoomLog
from tests.support.server import User

Json = dict[str, Any]
Logs = dict[str, RoomLog]


class Violation(AssertionError):
    """A client was told something wrong."""


def require(holds: bool, *what: object) -> None:
    """Raise Violation unless something holds."""
    if not holds:
        raise Violation(" ".join(map(str, what)))


@dataclass
class Segment:
    """Consecutive events, with the token from which older ones can be had."""

    prev_batch: str
    event_ids: list[str]


@dataclass
class ClientRoom:
    """What a client knows of a room."""

    view: str = "leave"
    state: dict[Key, str] = field(default_factory=dict)
    contents: dict[str, Json] = field(default_factory=dict)
    segments: list[Segment] = field(default_factory=list)
    unread: Json = field(default_factory=dict)
    threads: Json = field(default_factory=dict)
    summary: Json = field(default_factory=dict)
    account: dict[str, Json] = field(default_factory=dict)
    receipts: set[tuple[str, str, str, str | None]] = field(default_factory=set)
    """Type, user, event, thread."""

    def known(self) -> set[str]:
        """The events of the timeline."""
        return {name for segment in self.segments for name in segment.event_ids}


@dataclass(frozen=True)
class Habits:
    """How a client syncs, always."""

    state_after: bool = False
    lazy: bool = False
    redundant: bool = False
    by_thread: bool = False
    include_leave: bool = False
    timeline: Json = field(default_factory=dict)
    """A filter of the timeline."""

    def filter(self, limit: int) -> str:
        """The `filter` parameter."""
        state: Json = {"lazy_load_members": self.lazy}
        if self.redundant:
            state["include_redundant_members"] = True
        timeline = {**self.timeline, "limit": limit, "unread_thread_notifications": self.by_thread}
        room = {"state": state, "timeline": timeline, "include_leave": self.include_leave}
        return json.dumps({"room": room})

    def wants(self, entry: Entry) -> bool:
        """Whether the timeline has an event."""
        only, never = self.timeline.get("types"), self.timeline.get("not_types", ())
        wanted = (only is None or entry.type in only) and entry.type not in never
        return wanted and entry.sender not in self.timeline.get("not_senders", ())


class ModelClient:
    """A device of a user."""

    def __init__(self, user: User, habits: Habits) -> None:
        self.user = user
        self.habits = habits
        self.token: str | None = None
        self.rooms: dict[str, ClientRoom] = {}
        self.account: dict[str, Json] = {}

    async def ask(self, limit: int, *, full_state: bool = False) -> Json:
        """Make a request with the present token."""
        query: Json = {"filter": self.habits.filter(limit)}
        if full_state:
            query["full_state"] = True
        if self.habits.state_after:
            query["use_state_after"] = True
        answer: Json = await self.user.sync(self.token, **query)
        return answer

    def restart(self) -> None:
        """Forget everything."""
        self.token = None
        self.rooms = {}
        self.account = {}

    def take(self, answer: Json, logs: Logs) -> None:
        """Take in an answer."""
        sections = answer.get("rooms", {})
        for event in answer.get("account_data", {}).get("events", []):
            self.account[event["type"]] = event["content"]
        listed = [name for part in sections.values() for name in part]
        require(len(listed) == len(set(listed)), "a room is in two sections", listed)
        for room_id, section in sections.get("join", {}).items():
            self._joined(room_id, section, logs[room_id])
        for room_id, section in sections.get("leave", {}).items():
            self._left(room_id, section, logs[room_id])
        for kind in ("invite", "knock"):
            for room_id, section in sections.get(kind, {}).items():
                self.rooms.setdefault(room_id, ClientRoom()).view = kind
                types = {event["type"] for event in section[f"{kind}_state"]["events"]}
                require({"m.room.create", MEMBER} <= types, f"{kind} of {room_id} has {types}")
        self.token = answer["next_batch"]

    def _joined(self, room_id: str, section: Json, log: RoomLog) -> None:
        room = self.rooms.get(room_id)
        if room is None or room.view != "join":
            room = self.rooms[room_id] = ClientRoom("join")
        self._timeline(room, section["timeline"], log)
        self._state(room, section, log)
        room.summary |= section.get("summary", {})
        if "unread_notifications" in section:
            room.unread = section["unread_notifications"]
            room.threads = section.get("unread_thread_notifications", {})
        for event in section.get("account_data", {}).get("events", []):
            room.account[event["type"]] = event["content"]
        for event in section.get("ephemeral", {}).get("events", []):
            if event["type"] == "m.receipt":
                self._receipts(room, event["content"])

    def _receipts(self, room: ClientRoom, content: Json) -> None:
        for event_id, kinds in content.items():
            for kind, users in kinds.items():
                for user_id, data in users.items():
                    thread = data.get("thread_id")
                    require(
                        kind == "m.read" or user_id == self.user.user_id,
                        f"{self.user.user_id} was told a private receipt of {user_id}",
                    )
                    room.receipts = {
                        item
                        for item in room.receipts
                        if (item[0], item[1], item[3]) != (kind, user_id, thread)
                    } | {(kind, user_id, event_id, thread)}

    def _timeline(self, room: ClientRoom, timeline: Json, log: RoomLog) -> None:
        shown = [event["event_id"] for event in timeline["events"]]
        where = f"{log.room_id} for {self.user.user_id}"
        for name in shown:
            require(name in log.by_id, f"{name} is not in {where}")
        places = [log.by_id[name].pos for name in shown]
        require(places == sorted(places), f"order in {where}: {places}")
        visible = {entry.event_id for entry in log.visible(self.user.user_id)}
        require(visible.issuperset(shown), f"hidden in {where}: {set(shown) - visible}")
        for name in shown:
            require(self.habits.wants(log.by_id[name]), f"unwanted in {where}: {name}")
        if timeline["limited"] or not room.segments:
            room.segments.append(Segment(timeline["prev_batch"], shown))
            return
        twice = room.known() & set(shown)
        require(not twice, f"shown twice in {where}: {twice}")
        room.segments[-1].event_ids += shown

    def _state(self, room: ClientRoom, section: Json, log: RoomLog) -> None:
        timeline = section["timeline"]["events"]
        where = f"{log.room_id} for {self.user.user_id}"
        unexpected = "state" if self.habits.state_after else "state_after"
        require(unexpected not in section, f"{unexpected} in {where}")
        events = section["state_after" if self.habits.state_after else "state"]["events"]
        keys = [(event["type"], event["state_key"]) for event in events]
        require(len(keys) == len(set(keys)), f"state has keys twice in {where}: {keys}")
        shown = {event["event_id"] for event in timeline}
        if not self.habits.state_after:
            both = [e["event_id"] for e in events if e["event_id"] in shown]
            require(not both, f"in state and timeline of {where}: {both}")
            events = events + [event for event in timeline if "state_key" in event]
        for event in events:
            room.state[event["type"], event["state_key"]] = event["event_id"]
            room.contents[event["event_id"]] = event["content"]
        for event in timeline:
            if event["type"] == "m.room.redaction":
                target = event.get("redacts") or event["content"].get("redacts")
                room.contents.pop(target, None)
        # The end of an invite or a knock comes without state.
        for event in timeline if room.view == "join" or len(events) > len(timeline) else ():
            require(
                (MEMBER, event["sender"]) in room.state,
                f"the member event of {event['sender']} is not known in {where}",
            )

    def _left(self, room_id: str, section: Json, log: RoomLog) -> None:
        room = self.rooms.get(room_id)
        was_joined = room is not None and room.view == "join"
        if room is None or not was_joined:
            room = self.rooms[room_id] = ClientRoom()
        room.view = "leave"
        _, until = log.last_stay(self.user.user_id)
        left = [
            entry
            for entry in log.entries
            if log.membership(self.user.user_id, entry.before) in ("join", "invite", "knock")
            and log.membership(self.user.user_id, entry.after) in ("leave", "ban")
        ]
        never_joined = until is None
        last = log.state[MEMBER, self.user.user_id] if never_joined or not left else left[-1]
        for event in section["timeline"]["events"]:
            require(log.by_id[event["event_id"]].pos <= last.pos, f"after leaving {room_id}")
        self._timeline(room, section["timeline"], log)
        self._state(room, section, log)
        if was_joined and until is not None and not self.habits.lazy:
            end = next(entry for entry in log.entries if entry.pos == until)
            wanted = {key: entry.event_id for key, entry in end.after.items()}
            if room.state.get((MEMBER, self.user.user_id)) == end.event_id:
                require(
                    room.state == wanted,
                    f"state at the leave of {room_id} for {self.user.user_id}:",
                    difference(room.state, wanted, log),
                )

    # Checks

    def check_memberships(self, logs: Logs, ignored_ever: set[str]) -> None:
        """Joined rooms, invites and knocks are the server's."""
        me = self.user.user_id
        for kind in ("join", "knock", "invite"):
            here = {name for name, room in self.rooms.items() if room.view == kind}
            there = {name for name, log in logs.items() if log.membership(me) == kind}
            if kind == "invite":
                there -= {
                    name
                    for name in there - here
                    if logs[name].state[MEMBER, me].sender in ignored_ever
                }
            require(here == there, f"{kind} of {me}: {here} instead of {there}")

    def check_states(self, logs: Logs) -> None:
        """The state of each joined room is the server's; so are counts of members and heroes."""
        me = self.user.user_id
        for room_id, room in self.rooms.items():
            log = logs[room_id]
            if room.view != "join":
                continue
            found, wanted = room.state, log.state_ids()
            if self.habits.lazy:
                wanted = {k: v for k, v in wanted.items() if k[0] != MEMBER or k in found}
            require(
                found == wanted, f"state of {room_id} for {me}:", difference(found, wanted, log)
            )
            counts = {
                "m.joined_member_count": len(log.members("join")),
                "m.invited_member_count": len(log.members("invite")),
            }
            require(counts.items() <= room.summary.items(), f"{room.summary} is not {counts}")
            # Of a redaction in a gap the client is not told.
            keys = ("m.room.name", ""), ("m.room.canonical_alias", "")
            names = [room.contents.get(room.state.get(key, ""), {}) for key in keys]
            if not any(content.get("name") or content.get("alias") for content in names):
                heroes = log.members("join", "invite") - {me} or log.members("leave", "ban") - {me}
                shown = room.summary.get("m.heroes", [])
                require(
                    set(shown) <= heroes and len(shown) == min(len(heroes), 5),
                    f"heroes of {room_id} for {me}: {shown} of {heroes}",
                )

    async def check_history(self, logs: Logs, ignored_ever: set[str]) -> None:
        """The timeline with its gaps filled is what the user may see of the room."""
        for room_id, room in self.rooms.items():
            if room.view != "join":
                continue
            log = logs[room_id]
            # What came while its sender was ignored stays away.
            given = [name for name in await self._fill(room_id, room) if name in log.by_id]
            found = _without(given, log, ignored_ever)
            visible = [e for e in log.visible(self.user.user_id) if self.habits.wants(e)]
            wanted = _without([entry.event_id for entry in visible], log, ignored_ever)
            if found != wanted:
                lost = [log.by_id[name] for name in wanted if name not in found]
                more = [log.by_id[name] for name in found if name not in wanted]
                raise Violation(
                    f"history of {room_id} for {self.user.user_id}: lost {lost}; more {more};"
                    f" {len(found)} and {len(wanted)}"
                )

    async def _fill(self, room_id: str, room: ClientRoom) -> list[str]:
        """All that the client has, with what `/messages` has between the parts."""
        whole: list[str] = []
        older = [list(segment.event_ids) for segment in room.segments]
        for segment in reversed(room.segments):
            part = older.pop()
            rest = {name for names in older for name in names}
            whole = [name for name in part if name not in whole] + whole
            gap: list[str] = []
            async for name in pages(self.user, room_id, segment.prev_batch, self.habits.timeline):
                if name in rest:
                    break
                gap.append(name)
            whole = [name for name in reversed(gap) if name not in whole] + whole
        return whole


def _without(names: list[str], log: RoomLog, senders: set[str]) -> list[str]:
    return [
        name
        for name in names
        if log.by_id[name].state_key is not None or log.by_id[name].sender not in senders
    ]


def difference(found: dict[Key, str], wanted: dict[Key, str], log: RoomLog) -> list[object]:
    """The keys that differ, with positions of the events."""

    def pos(name: str | None) -> int | None:
        return log.by_id[name].pos if name in log.by_id else None

    keys = found.keys() | wanted.keys()
    return [
        (key, pos(found.get(key)), pos(wanted.get(key)))
        for key in sorted(keys)
        if found.get(key) != wanted.get(key)
    ]


async def pages(user: User, room_id: str, start: str | None, wanted: Json, limit: int = 7) -> Any:
    """Event IDs backwards from a token, or from the end."""
    token = start
    while True:
        query: Json = {"dir": "b", "limit": limit, "filter": json.dumps(wanted)}
        if token is not None:
            query["from"] = token
        page = await user.ok("GET", f"/rooms/{quote(room_id)}/messages", query=query)
        for event in page["chunk"]:
            yield event["event_id"]
        token = page.get("end")
        if token is None:
            return
