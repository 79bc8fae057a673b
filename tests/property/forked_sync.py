"""A client that follows `/sync` in a forked room, and compares."""

from __future__ import annotations

import json
from typing import Any

from tests.property.forked_room import MEMBER, ForkedRoom, membership_in
from tests.property.sync_client import pages, require
from tests.support.server import User

Json = dict[str, Any]


class Follower:
    """A client that keeps what it is told."""

    def __init__(
        self,
        user: User,
        *,
        limit: int,
        lazy: bool = False,
        state_after: bool = False,
        types: list[str] | None = None,
    ) -> None:
        self.user = user
        self.lazy, self.state_after, self.types = lazy, state_after, types
        timeline: Json = {"limit": limit, **({"types": types} if types else {})}
        self.timeline_filter = {"types": types} if types else {}
        room = {"timeline": timeline, "state": {"lazy_load_members": lazy}}
        self.filter = json.dumps({"room": room})
        self.since: str | None = None
        self.view = "leave"
        self.state: dict[tuple[str, str], str] = {}
        self.summary: Json = {}
        self.unread = 0
        self.segments: list[tuple[str | None, list[str]]] = []

    async def sync(self, room: ForkedRoom, *, full_state: bool = False) -> None:
        """Sync, and compare with what the server has."""
        query: Json = {"filter": self.filter}
        query |= {"full_state": True} if full_state else {}
        query |= {"use_state_after": True} if self.state_after else {}
        answer = await self.user.sync(self.since, **query)
        room.done.append(f"{self.user.user_id} {query} from {self.since}: {answer}")
        self.since = answer["next_batch"]
        sections = answer.get("rooms", {})
        here = [kind for kind, part in sections.items() if room.room_id in part]
        require(len(here) < 2, f"in several sections: {here}")
        for kind in here:
            self._take(room, kind, sections[kind][room.room_id])
        self._check(room)

    def _take(self, room: ForkedRoom, kind: str, section: Json) -> None:
        if kind in ("invite", "knock"):
            self.view = kind
            types = {event["type"] for event in section[f"{kind}_state"]["events"]}
            require({"m.room.create", MEMBER} <= types, f"{kind} has {types}")
            return
        if kind == "join" != self.view:
            self.state, self.segments, self.summary = {}, [], {}
        was_there, self.view = self.view == "join", kind
        timeline = section["timeline"]
        self._take_timeline(room, timeline)
        events = section["state_after" if self.state_after else "state"]["events"]
        keys = [(event["type"], event["state_key"]) for event in events]
        require(len(keys) == len(set(keys)), f"state has keys twice: {keys}")
        if not self.state_after:
            shown = {event["event_id"] for event in timeline["events"]}
            require(not shown & {e["event_id"] for e in events}, "in state and timeline")
            events = events + [event for event in timeline["events"] if "state_key" in event]
        for event in events:
            self.state[event["type"], event["state_key"]] = event["event_id"]
        own = self.state.get((MEMBER, self.user.user_id))
        is_told = (MEMBER, self.user.user_id) in room.current
        if kind == "leave" and was_there and own is not None and is_told:
            membership = room.events[own].membership or ""
            # Where resolution made an invite of a join, that is how the stay ended.
            me = self.user.user_id
            ends = {new for _, user, new, old in room.moves if (user, old) == (me, "join")}
            allowed = {"leave", "ban"} | ends - {"join"}
            require(membership in allowed, f"{membership} in a room that was left")
        if kind == "join":
            self.summary |= section.get("summary", {})
            self.unread = section["unread_notifications"]["notification_count"]
            for event in timeline["events"]:
                sender = (MEMBER, event["sender"])
                require(
                    sender in self.state or sender not in room.current, f"{sender} is not known"
                )

    def _take_timeline(self, room: ForkedRoom, timeline: Json) -> None:
        shown = [event["event_id"] for event in timeline["events"]]
        visible = {item.event.event_id: item.pos for item in room.visible(self.user.user_id)}
        if self.view == "leave" and shown and not visible.keys() & set(shown):
            # The end of an invite, by an event that came without a place in the timeline.
            (end,) = (room.events[name] for name in shown)
            require(end.key == (MEMBER, self.user.user_id), f"hidden: {shown}")
            require(end.membership in ("leave", "ban"), f"hidden: {shown}")
            return
        require(visible.keys() >= set(shown), f"hidden: {set(shown) - visible.keys()}")
        places = [visible[name] for name in shown]
        require(places == sorted(places), f"order: {places}")
        missing = room.lost - {item.event.event_id for item in room.timeline}
        for item in room.timeline:
            if item.event.event_id in shown[1:] and not self.types:
                behind = missing.intersection(item.event.prev_event_ids)
                require(not behind, f"the timeline goes on over a gap: {behind}")
        if timeline["limited"] or not self.segments:
            self.segments.append((timeline["prev_batch"], shown))
            return
        twice = {name for _, names in self.segments for name in names} & set(shown)
        require(not twice, f"shown twice: {twice}")
        self.segments[-1][1].extend(shown)

    def _check(self, room: ForkedRoom) -> None:
        me = self.user.user_id
        membership = room.membership(me)
        view = membership if membership in ("join", "invite", "knock") else "leave"
        require(self.view == view, f"{self.view} instead of {view}")
        if view != "join":
            return
        wanted = {key: event.event_id for key, event in room.current.items()}
        if self.lazy:
            wanted = {k: v for k, v in wanted.items() if k[0] != MEMBER or k in self.state}
        # Of a key that resolution took away /sync cannot tell.
        found = {key: name for key, name in self.state.items() if key in wanted}
        require(found == wanted, f"state: {found.items() ^ wanted.items()}")
        counts = {
            "m.joined_member_count": len(room.members("join")),
            "m.invited_member_count": len(room.members("invite")),
        }
        require(counts.items() <= self.summary.items(), f"{self.summary} is not {counts}")
        since, _ = room.last_stay(me)
        unread = 0
        for item in room.timeline:
            if item.event.type == "m.room.message" and item.pos > (since or 0):
                unread = 0 if item.event.sender == me else unread + 1
        if len(room.visible(me)) == len(room.timeline):
            # What a branch hides from one who is in the room is counted, but tells no client.
            require(self.unread == unread, f"{self.unread} unread instead of {unread}")

    async def check_history(self, room: ForkedRoom) -> None:
        """The timeline and what `/messages` has before its parts are all that the user may see."""
        if self.view != "join":
            return
        found: set[str] = set()
        for token, names in self.segments:
            found.update(names)
            async for name in pages(self.user, room.room_id, token, self.timeline_filter):
                found.add(name)
        visible = room.visible(self.user.user_id)
        wanted = {
            item.event.event_id
            for item in visible
            if self.types is None or item.event.type in self.types
        }
        require(found >= wanted, f"lost: {wanted - found}")
        known = {item.event.event_id for item in room.timeline}
        require(not (found & known) - wanted, f"hidden: {(found & known) - wanted}")
        memberships = {membership_in(item.after, self.user.user_id) for item in visible}
        require("join" in memberships, "the own join is not visible")
