"""`Event`: the one form in which the server holds an event in memory."""

from __future__ import annotations

from typing import Any, Self

import orjson

from homeserver.core import canonical
from homeserver.core.redaction import redact
from homeserver.core.room_versions import RoomVersion
from homeserver.core.signing import event_id_for
from homeserver.core.types import JsonObject, StateKey


class Event:
    """An event: its ID, the version of its room, and its federation form.

    Immutable: nobody changes `pdu`. The properties trust that `event_format.check_pdu` has let
    the event through. Two events are equal if their IDs are.
    """

    __slots__ = ("_auth_event_ids", "_pdu", "_prev_event_ids", "_text", "event_id", "version")

    def __init__(
        self,
        event_id: str,
        version: RoomVersion,
        pdu: JsonObject | None,
        text: str | bytes = b"",
    ) -> None:
        """Use `from_pdu` or `from_json`."""
        self.event_id = event_id
        self.version = version
        self._pdu = pdu
        self._text: str | bytes = text
        self._prev_event_ids: tuple[str, ...] | None = None
        self._auth_event_ids: tuple[str, ...] | None = None

    @classmethod
    def from_pdu(cls, pdu: JsonObject, version: RoomVersion, event_id: str | None = None) -> Self:
        """The event with this federation form; its ID is computed unless given.

        Raises `CanonicalJSONError` if it has no ID.
        """
        return cls(event_id if event_id is not None else event_id_for(pdu, version), version, pdu)

    @classmethod
    def from_json(cls, text: str | bytes, version: RoomVersion, event_id: str) -> Self:
        """The event with this stored federation form, parsed when first looked into.

        `text` must be JSON that this server has written.
        """
        return cls(event_id, version, None, text)

    @property
    def pdu(self) -> JsonObject:
        """The federation form. Never change it."""
        pdu = self._pdu
        if pdu is None:
            # Integers beyond 64 bits occur in lenient versions only; orjson would spoil them.
            strict = self.version.strict_canonical_json
            pdu = orjson.loads(self._text) if strict else canonical.parse(self._text)
            self._pdu = pdu
            self._text = b""
        return pdu

    @property
    def type(self) -> str:
        return self.pdu["type"]  # type: ignore[no-any-return]

    @property
    def room_id(self) -> str:
        """The room ID; derived from the event ID for a create event that has none of its own."""
        room_id = self.pdu.get("room_id")
        return room_id if room_id is not None else "!" + self.event_id[1:]

    @property
    def state_key(self) -> str | None:
        return self.pdu.get("state_key")

    @property
    def is_state(self) -> bool:
        return self.pdu.get("state_key") is not None

    @property
    def is_create(self) -> bool:
        """Is this the event that creates its room?"""
        pdu = self.pdu
        return bool(pdu["type"] == "m.room.create" and pdu.get("state_key") == "")

    @property
    def key(self) -> StateKey:
        """(type, state key) of a state event; raises `KeyError` for others."""
        pdu = self.pdu
        return pdu["type"], pdu["state_key"]

    @property
    def sender(self) -> str:
        return self.pdu["sender"]  # type: ignore[no-any-return]

    @property
    def origin_server_ts(self) -> int:
        """Milliseconds since 1970, as the sender's server claims."""
        return self.pdu["origin_server_ts"]  # type: ignore[no-any-return]

    @property
    def depth(self) -> int:
        return self.pdu["depth"]  # type: ignore[no-any-return]

    @property
    def content(self) -> JsonObject:
        return self.pdu["content"]  # type: ignore[no-any-return]

    @property
    def prev_event_ids(self) -> tuple[str, ...]:
        if self._prev_event_ids is None:
            self._prev_event_ids = _referenced(self.pdu.get("prev_events"), self.version)
        return self._prev_event_ids

    @property
    def auth_event_ids(self) -> tuple[str, ...]:
        if self._auth_event_ids is None:
            self._auth_event_ids = _referenced(self.pdu.get("auth_events"), self.version)
        return self._auth_event_ids

    @property
    def redacts(self) -> str | None:
        """The event that this redaction names, from where the version keeps it; None if none."""
        pdu = self.pdu
        if pdu["type"] != "m.room.redaction":
            return None
        holder = pdu["content"] if self.version.redacts_in_content else pdu
        redacts = holder.get("redacts")
        return redacts if isinstance(redacts, str) else None

    @property
    def membership(self) -> str | None:
        """`content.membership` of a member event; None for others."""
        pdu = self.pdu
        if pdu["type"] != "m.room.member":
            return None
        membership = pdu["content"].get("membership")
        return membership if isinstance(membership, str) else None

    def redacted(self) -> Event:
        """The event in its redacted form, with the same ID."""
        return Event(self.event_id, self.version, redact(self.pdu, self.version))

    def to_json(self) -> bytes:
        """The federation form as canonical JSON, for storage and for other servers."""
        if self._pdu is None:
            return self._text.encode() if isinstance(self._text, str) else self._text
        if self.version.strict_canonical_json:
            return canonical.encode(self._pdu)
        return canonical.encode_lenient(self._pdu)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Event) and other.event_id == self.event_id

    def __hash__(self) -> int:
        return hash(self.event_id)

    def __repr__(self) -> str:
        return f"<Event {self.event_id} {self.type} {self.state_key!r} in {self.room_id}>"


def _referenced(entries: Any, version: RoomVersion) -> tuple[str, ...]:
    if not entries:
        return ()
    # In versions 1 and 2 an entry is a pair of event ID and hashes.
    return tuple(entry[0] for entry in entries) if version.event_format == 1 else tuple(entries)
