"""Rooms in which things happen at random, for comparing two ways to show them."""

from __future__ import annotations

import itertools
import random
from typing import Any

from tests.support.server import User


def forget_age(event: Any) -> None:
    """Take out of an event what depends on the time."""
    assert abs(event["unsigned"].pop("age")) < 600_000
    because = event["unsigned"].get("redacted_because")
    if because is not None:
        forget_age(because)
    relations = event["unsigned"].get("m.relations", {})
    for child in (relations.get("m.replace"), relations.get("m.thread", {}).get("latest_event")):
        if child is not None:
            forget_age(child)


class Life:
    """Things that happen in rooms, to some users of which the first makes the rooms."""

    def __init__(self, users: list[User], seed: int) -> None:
        self.random = random.Random(seed)
        self.users = users
        self.keys = itertools.count()
        self.rooms: list[str] = []
        self.events: dict[str, list[str]] = {}
        self.inside: dict[str, list[User]] = {}

    async def make_room(self, **body: Any) -> str:
        """One more room; its ID."""
        creator = self.users[0]
        room_id = await creator.create_room(**{"preset": "public_chat", **body})
        self.rooms.append(room_id)
        self.events[room_id] = []
        self.inside[room_id] = [creator]
        return room_id

    async def step(self) -> None:
        """Have something happen."""
        room_id = self.random.choice(self.rooms)
        user = self.random.choice(self.inside[room_id])
        known = self.events[room_id]
        what = self.random.choice(
            ["message"] * 6 + ["join"] * 2 + ["name", "topic", "leave", "redact", "react", "rename"]
        )
        if what == "message":
            known.append(await user.send(room_id, f"m{len(known)}"))
        elif what == "join":
            outside = [one for one in self.users if one not in self.inside[room_id]]
            if outside:
                await outside[0].join(room_id)
                self.inside[room_id].append(outside[0])
        elif what == "leave" and user is not self.users[0]:
            await user.leave(room_id)
            self.inside[room_id].remove(user)
        elif what == "redact" and known:
            event_id = self.random.choice(known)
            await self.users[0].ok("PUT", f"/rooms/{room_id}/redact/{event_id}/x{len(known)}", {})
            known.append(await user.send(room_id, "after a redaction"))
        elif what == "react" and known:
            relation = {
                "rel_type": "m.annotation",
                "event_id": known[-1],
                "key": str(next(self.keys)),
            }
            await user.send(room_id, {"m.relates_to": relation}, "m.reaction")
        elif what == "rename":
            content = {"membership": "join", "displayname": f"N{len(known)}"}
            known.append(await user.set_state(room_id, "m.room.member", content, user.user_id))
        elif what in ("name", "topic"):
            kind, value = f"m.room.{what}", {what: f"{what} {len(known)}"}
            known.append(await self.users[0].set_state(room_id, kind, value))
