"""Rooms and events made by hand, without a server: `RoomBuilder`."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from homeserver.core.auth_rules import auth_types
from homeserver.core.event import Event
from homeserver.core.ids import domain_of
from homeserver.core.room_versions import ROOM_VERSIONS, RoomVersion
from homeserver.core.signing import (
    SigningKey,
    content_hash,
    encode_base64,
    event_id_for,
    generate_signing_key,
    hash_and_sign_event,
)
from homeserver.core.types import JsonObject, StateKey

ALICE = "@alice:a.example"
BOB = "@bob:b.example"
CAROL = "@carol:c.example"
START_TS = 1_700_000_000_000
ALL_VERSIONS = tuple(ROOM_VERSIONS)
"""The identifiers of all versions, for tests that loop over them."""


def test_key(server: str) -> SigningKey:
    """The signing key that a server of this name has in tests."""
    return generate_signing_key("test", server.encode()[:32].ljust(32, b"."))


test_key.__test__ = False  # type: ignore[attr-defined]


class RoomBuilder:
    """A room that grows event by event; nothing is authorised.

    `events` holds all events by ID, `state` the current state as events, `heads` the IDs of the
    forward extremities. Every method that makes an event returns it, having put it after
    `heads`, unless `prev` says otherwise. Events get content hashes and real IDs, times one
    second apart, and, if `sign`, the signature of their sender's server by `test_key`.
    """

    def __init__(
        self,
        version: str = "12",
        *,
        creator: str = ALICE,
        room_id: str | None = None,
        create_content: JsonObject | None = None,
        sign: bool = False,
    ) -> None:
        self.version: RoomVersion = ROOM_VERSIONS[version]
        self.creator = creator
        self.room_id = room_id or f"!room:{domain_of(creator)}"
        self.sign = sign
        self.events: dict[str, Event] = {}
        self.state: dict[StateKey, Event] = {}
        self.heads: list[str] = []
        self._numbers: Iterator[int] = itertools.count()
        content: JsonObject = {"room_version": version}
        if not self.version.implicit_room_creator:
            content["creator"] = creator
        content.update(create_content or {})
        self.create = self.event("m.room.create", creator, content, "")
        self.room_id = self.create.room_id

    @classmethod
    def started(
        cls,
        version: str = "12",
        *,
        creator: str = ALICE,
        members: Iterable[str] = (),
        join_rule: str = "public",
        users: Mapping[str, Any] | None = None,
        power: JsonObject | None = None,
        create_content: JsonObject | None = None,
        sign: bool = False,
        room_id: str | None = None,
    ) -> RoomBuilder:
        """A room as it is after its creation: creator, power levels, join rules, members.

        `users` are added to the users of the power levels, `power` replaces other keys. The
        creator is listed with 100 where the version lets creators be listed.
        """
        room = cls(
            version, creator=creator, room_id=room_id, create_content=create_content, sign=sign
        )
        room.join(creator)
        listed = {} if room.version.creators_privileged else {creator: 100}
        room.power_levels(**{"users": {**listed, **(users or {})}, **(power or {})})
        room.join_rules(join_rule)
        for user in members:
            room.join(user)
        return room

    def fork(self) -> RoomBuilder:
        """A builder at the same place of the same graph: shares `events`, goes its own way."""
        other = object.__new__(RoomBuilder)
        other.__dict__.update(self.__dict__)
        other.state = dict(self.state)
        other.heads = list(self.heads)
        return other

    def merge(self, other: RoomBuilder, state: Mapping[StateKey, Event]) -> None:
        """Go on after both branches, from the resolved `state`."""
        self.heads = list(dict.fromkeys([*self.heads, *other.heads]))
        self.state = dict(state)

    @property
    def state_ids(self) -> dict[StateKey, str]:
        """The current state as event IDs."""
        return {key: event.event_id for key, event in self.state.items()}

    def event(
        self,
        event_type: str,
        sender: str,
        content: JsonObject | None = None,
        state_key: str | None = None,
        *,
        prev: Iterable[Event | str] | None = None,
        auth: Iterable[Event | str] | None = None,
        state: Mapping[StateKey, Event] | None = None,
        ts: int | None = None,
        depth: int | None = None,
        add: bool = True,
        **top_level: Any,
    ) -> Event:
        """Make an event and, unless `add` is false, let the room go on after it.

        `prev` and `auth` default to the heads and to the auth events selection from `state`
        (default: the current state). `top_level` sets further keys of the federation form, and
        removes those given as None.
        """
        number = next(self._numbers)
        prev_ids = self.heads if prev is None else _ids(prev)
        content = {} if content is None else content
        if auth is None:
            source = self.state if state is None else state
            wanted = auth_types(event_type, sender, state_key, content, self.version)
            auth = [source[key] for key in sorted(wanted) if key in source]
        if depth is None:
            depth = 1 + max((self.events[i].depth for i in prev_ids if i in self.events), default=0)
        pdu: JsonObject = {
            "type": event_type,
            "room_id": self.room_id,
            "sender": sender,
            "content": content,
            "origin_server_ts": START_TS + 1000 * number if ts is None else ts,
            "depth": depth,
            "prev_events": self._references(prev_ids),
            "auth_events": self._references(_ids(auth)),
            "hashes": {},
            "signatures": {},
        }
        if state_key is not None:
            pdu["state_key"] = state_key
        if self.version.event_format == 1:
            pdu["event_id"] = f"${number}:{domain_of(sender)}"
        if self.version.room_id_is_create_hash and event_type == "m.room.create":
            del pdu["room_id"]
        for key, value in top_level.items():
            if value is None:
                pdu.pop(key, None)
            else:
                pdu[key] = value
        event = self._finished(pdu)
        self.events[event.event_id] = event
        if add:
            self.append(event)
        return event

    def append(self, event: Event) -> None:
        """Let the room go on after `event`."""
        named = set(event.prev_event_ids)
        self.heads = [head for head in self.heads if head not in named] + [event.event_id]
        if event.is_state:
            self.state[event.key] = event

    def member(
        self,
        user: str,
        membership: str,
        sender: str | None = None,
        content: JsonObject | None = None,
        **options: Any,
    ) -> Event:
        """A member event by the user, or by `sender`; `content` adds to it."""
        full = {"membership": membership, **(content or {})}
        return self.event("m.room.member", sender or user, full, user, **options)

    def join(self, user: str, content: JsonObject | None = None, **options: Any) -> Event:
        return self.member(user, "join", None, content, **options)

    def invite(self, sender: str, user: str, **options: Any) -> Event:
        return self.member(user, "invite", sender, **options)

    def knock(self, user: str, **options: Any) -> Event:
        return self.member(user, "knock", **options)

    def leave(self, user: str, **options: Any) -> Event:
        return self.member(user, "leave", **options)

    def kick(self, sender: str, user: str, **options: Any) -> Event:
        """A leave by somebody else: kick, unban, or taking back an invite."""
        return self.member(user, "leave", sender, **options)

    def ban(self, sender: str, user: str, **options: Any) -> Event:
        return self.member(user, "ban", sender, **options)

    def power_levels(self, sender: str | None = None, **content: Any) -> Event:
        """A power-levels event with exactly this content."""
        return self.event("m.room.power_levels", sender or self.creator, content, "")

    def join_rules(
        self, join_rule: str, sender: str | None = None, allow: Any = None, **options: Any
    ) -> Event:
        content: JsonObject = {"join_rule": join_rule}
        if allow is not None:
            content["allow"] = allow
        return self.event("m.room.join_rules", sender or self.creator, content, "", **options)

    def set_state(
        self, event_type: str, content: JsonObject, sender: str | None = None, **options: Any
    ) -> Event:
        """A state event; `state_key` may be among the options."""
        state_key = options.pop("state_key", "")
        return self.event(event_type, sender or self.creator, content, state_key, **options)

    def message(self, sender: str | None = None, body: str = "hello", **options: Any) -> Event:
        content = {"msgtype": "m.text", "body": body}
        return self.event("m.room.message", sender or self.creator, content, **options)

    def redaction(self, sender: str, redacts: Event | str, **options: Any) -> Event:
        """A redaction, naming the redacted event where the version keeps it."""
        target = redacts.event_id if isinstance(redacts, Event) else redacts
        if self.version.redacts_in_content:
            return self.event("m.room.redaction", sender, {"redacts": target}, **options)
        return self.event("m.room.redaction", sender, {}, redacts=target, **options)

    def _references(self, event_ids: Iterable[str]) -> list[Any]:
        if self.version.event_format == 1:
            return [[event_id, {"sha256": "AAAA"}] for event_id in event_ids]
        return list(event_ids)

    def _finished(self, pdu: JsonObject) -> Event:
        if self.sign:
            server = domain_of(pdu["sender"])
            hash_and_sign_event(pdu, self.version, server, test_key(server))
        elif pdu.get("hashes") == {}:
            pdu["hashes"] = {"sha256": encode_base64(content_hash(pdu, self.version))}
        return Event.from_pdu(pdu, self.version, event_id_for(pdu, self.version))


def _ids(events: Iterable[Event | str]) -> list[str]:
    return [event.event_id if isinstance(event, Event) else event for event in events]
