"""A peer whose events have anything at all in the places where clients and servers look."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from homeserver.core.types import JsonObject
from tests.conformance.hostile_peer import HostilePeerCase
from tests.support.federation import eventually

NOISE = "".join(hashlib.sha256(str(n).encode()).hexdigest() for n in range(400))
"""Too long for an index, and not to be compressed."""

STRANGE: tuple[Any, ...] = (
    "\x00",
    "a\x00b:\x00",
    NOISE,
    "\U0010ffff\u202e\ufeff\ufffe",
    "",
    2**53 - 1,
    -(2**53) + 1,
    0,
    True,
    None,
    [],
    {},
    ["\x00", {}, 1],
    {"\x00": "\x00", NOISE[:300]: {"\x00": []}},
    ["@a:\x00", "@a:b.example", "!x\x00:y", "$\x00"],
    {"event_id": "$\x00", "rel_type": "m.thread", "key": "\x00"},
    {"event_id": NOISE, "rel_type": "m.annotation", "key": NOISE},
    {"event_id": "$x", "rel_type": NOISE, "m.in_reply_to": {"event_id": "\x00"}},
)

STATE: dict[str, tuple[str, ...]] = {
    "m.room.name": ("name",),
    "m.room.topic": ("topic", "m.topic"),
    "m.room.avatar": ("url", "info"),
    "m.room.canonical_alias": ("alias", "alt_aliases"),
    "m.room.guest_access": ("guest_access",),
    "m.room.encryption": ("algorithm", "rotation_period_ms"),
    "m.room.pinned_events": ("pinned",),
    "m.room.tombstone": ("body", "replacement_room"),
    "m.room.policy": ("via", "public_keys"),
    "m.room.third_party_invite": ("display_name", "public_key", "public_keys", "key_validity_url"),
    "m.room.history_visibility": ("history_visibility",),
    "m.space.child": ("via", "order", "suggested"),
    "m.space.parent": ("via", "canonical"),
    "m.room.retention": ("max_lifetime",),
}
MESSAGES: dict[str, tuple[str, ...]] = {
    "m.room.message": ("body", "msgtype", "url", "m.relates_to", "m.mentions", "formatted_body"),
    "m.room.encrypted": ("algorithm", "ciphertext", "session_id", "m.relates_to"),
    "m.reaction": ("m.relates_to",),
    "m.room.redaction": ("redacts", "reason"),
    "m.sticker": ("body", "url", "info"),
    "m.poll.start": ("m.poll", "m.relates_to"),
    "\u202estrange\U0010ffff": ("body",),
}
MEMBER = ("displayname", "avatar_url", "reason", "third_party_invite", "is_direct")

READS = (
    ("GET", "/sync", None),
    ("GET", "/rooms/{}/messages?dir=b&limit=1000", None),
    ("GET", "/rooms/{}/state", None),
    ("GET", "/rooms/{}/members", None),
    ("GET", "/rooms/{}/joined_members", None),
    ("GET", "/rooms/{}/aliases", None),
    ("GET", "/joined_rooms", None),
    ("GET", "/notifications", None),
    ("GET", "/publicRooms", None),
    ("POST", "/publicRooms", {"filter": {"generic_search_term": "a"}}),
    ("POST", "/user_directory/search", {"search_term": "mallory"}),
    ("GET", "../v1/rooms/{}/hierarchy", None),
    ("GET", "../v1/room_summary/{}", None),
    ("GET", "../v1/rooms/{}/threads", None),
    ("GET", "../v1/rooms/{}/relations/$x", None),
)


class StrangeContentTest(HostilePeerCase):
    """All of it is taken, and nothing fails that reads it."""

    async def prepare(self) -> None:
        await super().prepare()
        levels = await self.alice.ok("GET", f"/rooms/{self.room_id}/state/m.room.power_levels")
        levels["users"][self.mallory] = 100
        levels.setdefault("events", {})["m.room.tombstone"] = 50
        await self.alice.set_state(self.room_id, "m.room.power_levels", levels)
        await self.alice.ok("PUT", f"/directory/list/room/{self.room_id}", {"visibility": "public"})
        said = await self.alice.send(self.room_id, "now")
        await eventually(lambda: said in self.room.events)

    async def test_everywhere(self) -> None:
        """Shows RECV-12."""
        for event_type, keys in STATE.items():
            contents = list(self.contents(keys))
            await self.take(event_type, contents, "")
            await self.take(event_type, contents[:1], "\U0010ffff" * 60)
            # Back to what does no harm.
            await self.take(event_type, [{}], "")
            await self.read()
        for event_type, keys in MESSAGES.items():
            await self.take(event_type, list(self.contents(keys)), None)
            await self.read()
        await self.take(
            "m.room.member",
            [
                {**content, "membership": "join"}
                for content in self.contents(MEMBER)
                if "third_party_invite" not in content
            ],
            self.mallory,
        )
        await self.read()

    def contents(self, keys: tuple[str, ...]) -> Iterator[JsonObject]:
        for key in keys:
            for value in STRANGE:
                yield {key: value}
                if isinstance(value, str):
                    yield {key: {key: value}}
                    yield {key: [value]}

    async def take(
        self, event_type: str, contents: list[JsonObject], state_key: str | None
    ) -> None:
        for start in range(0, len(contents), 25):
            events = []
            for content in contents[start : start + 25]:
                event = self.room.make(event_type, content, self.mallory, state_key)
                self.room.add(event)
                events.append(event)
            status, answer = await self.peer.send(self.hearth.name, events)
            self.assertEqual(status, 200, answer)
            for event in events:
                self.assertEqual(answer["pdus"].get(event.event_id), {}, event.pdu)
            self.faultless(event_type)

    def faultless(self, what: object) -> None:
        for line in self.log:
            self.assertNotIn(line["log_level"], ("error", "critical"), (what, line))
            self.assertNotIn("exc_info", line, what)

    async def read(self) -> None:
        for method, path, body in READS:
            path = path.format(self.room_id)
            target = path.replace("..", "/_matrix/client")
            status, answer = await self.alice.call(method, target, body)
            self.assertLess(status, 500, (path, answer))
            self.faultless(path)


class StrangeContentV1Test(StrangeContentTest):
    version = "1"


class StrangeContentV12Test(StrangeContentTest):
    version = "12"
