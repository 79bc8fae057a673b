"""`Event`: the one form in which the server holds an event in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec
import orjson

from homeserver.core import canonical
from homeserver.core.redaction import redact
from homeserver.core.room_versions import RoomVersion
from homeserver.core.signing import event_id_for
from homeserver.core.types import JsonObject, StateKey


class Event:
    """An event: its ID, the version of its room, and its federation form.

    Immutable: nobody changes `pdu`. The attributes trust that `event_format.check_pdu` has let
    the event through. They are read from the federation form when they are asked for first, and
    kept, since the rules ask for the same few again and again; `KeyError` for what is not
    there. Two events are equal if their IDs are.
    """

    __slots__ = (
        "_pdu",
        "_text",
        "auth_event_ids",
        "content",
        "depth",
        "event_id",
        "is_create",
        "is_state",
        "key",
        "membership",
        "origin_server_ts",
        "prev_event_ids",
        "room_id",
        "sender",
        "state_key",
        "type",
        "version",
    )

    auth_event_ids: tuple[str, ...]
    content: JsonObject
    depth: int
    is_create: bool
    """Is this the event that creates its room?"""
    is_state: bool
    key: StateKey
    """(type, state key) of a state event."""
    membership: str | None
    """`content.membership` of a member event; None for others."""
    origin_server_ts: int
    """Milliseconds since 1970, as the sender's server claims."""
    prev_event_ids: tuple[str, ...]
    room_id: str
    """The room ID; derived from the event ID for a create event that has none of its own."""
    sender: str
    state_key: str | None
    type: str

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

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            # Called for an attribute that has not been read yet.
            read = _READERS.get(name)
            if read is None:
                raise AttributeError(f"An event has no attribute {name!r}.")
            read(self, self.pdu)
            return _slot(self, name)

    @classmethod
    def from_pdu(
        cls,
        pdu: JsonObject,
        version: RoomVersion,
        event_id: str | None = None,
        text: bytes = b"",
    ) -> Self:
        """The event with this federation form; its ID is computed unless given.

        Parameters: `text`, its canonical JSON, if at hand.

        Raises `CanonicalJSONError` if it has no ID.
        """
        if event_id is None:
            event_id = event_id_for(pdu, version)
        return cls(event_id, version, pdu, text)

    @classmethod
    def checked(
        cls,
        pdu: JsonObject,
        version: RoomVersion,
        event_id: str,
        text: bytes,
        *,
        keep: bool = True,
    ) -> Self:
        """As `from_pdu`, of what `event_format.check_pdu` has let through, with the attributes
        read at once that all are asked of who take it in.

        Parameters: `keep`, False to forget the parsed form where there is a `text`: of very many
        events that takes more memory than all else.
        """
        event = cls(event_id, version, pdu if keep or not text else None, text)
        _read_common(event, pdu)
        event.depth = pdu["depth"]
        event.origin_server_ts = pdu["origin_server_ts"]
        event.prev_event_ids = _referenced(pdu["prev_events"], version)
        _read_room_id(event, pdu)
        return event

    @classmethod
    def of_state(
        cls,
        event_id: str,
        version: RoomVersion,
        text: bytes,
        *,
        kind: str,
        state_key: str,
        sender: str,
        content: JsonObject,
        auth_event_ids: tuple[str, ...],
        prev_event_ids: tuple[str, ...],
        depth: int,
        origin_server_ts: int,
        room_id: str,
    ) -> Self:
        """A state event with this federation form, of which everything was read and checked, and
        that creates no room. `text` is its canonical JSON."""
        event = cls(event_id, version, None, text)
        event.type = kind
        event.state_key = state_key
        event.is_state = True
        event.is_create = False
        event.sender = sender
        event.content = content
        event.auth_event_ids = auth_event_ids
        event.prev_event_ids = prev_event_ids
        event.depth = depth
        event.origin_server_ts = origin_server_ts
        event.room_id = room_id
        event.key = (kind, state_key)
        membership = content.get("membership") if kind == "m.room.member" else None
        event.membership = membership if isinstance(membership, str) else None
        return event

    @classmethod
    def from_json(cls, text: str | bytes, version: RoomVersion, event_id: str) -> Self:
        """The event with this stored federation form, parsed when first looked into.

        `text` must be JSON that this server has written.
        """
        return cls(event_id, version, None, text)

    @classmethod
    def for_rules(cls, text: str | bytes, version: RoomVersion, event_id: str) -> Self:
        """As `from_json`, with all attributes read at once.

        For events of which the rules look at the attributes, and nobody at the rest: reading
        these costs a third of parsing all.
        """
        event = cls(event_id, version, None, text)
        if version.strict_canonical_json:
            try:
                _read_text(event, _DECODER.decode(text))
            except msgspec.MsgspecError:
                # Something odd that got through in earlier days: read as it is asked for.
                return cls(event_id, version, None, text)
        return event

    @classmethod
    def from_both(cls, pdu: JsonObject, text: bytes, version: RoomVersion, event_id: str) -> Self:
        """The event with this federation form, which is `text` as canonical JSON."""
        return cls(event_id, version, pdu, text)

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
    def redacts(self) -> str | None:
        """The event that this redaction names, from where the version keeps it; None if none."""
        if self.type != "m.room.redaction":
            return None
        holder = self.content if self.version.redacts_in_content else self.pdu
        redacts = holder.get("redacts")
        return redacts if isinstance(redacts, str) else None

    def redacted(self) -> Event:
        """The event in its redacted form, with the same ID."""
        return Event(self.event_id, self.version, redact(self.pdu, self.version))

    def to_json(self) -> bytes:
        """The federation form as canonical JSON, for storage and for other servers."""
        if self._text:
            return self._text.encode() if isinstance(self._text, str) else self._text
        assert self._pdu is not None
        if self.version.strict_canonical_json:
            return canonical.encode(self._pdu)
        return canonical.encode_lenient(self._pdu)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Event) and other.event_id == self.event_id

    def __hash__(self) -> int:
        return hash(self.event_id)

    def __repr__(self) -> str:
        return f"<Event {self.event_id} {self.type} {self.state_key!r} in {self.room_id}>"


_slot = object.__getattribute__


def _read_common(event: Event, pdu: JsonObject) -> None:
    """What the rules ask of nearly every event: read at once, as each first look costs."""
    event.type = kind = pdu["type"]
    event.state_key = state_key = pdu.get("state_key")
    event.is_state = state_key is not None
    event.is_create = state_key == "" and kind == "m.room.create"
    event.sender = pdu["sender"]
    event.content = content = pdu["content"]
    event.auth_event_ids = _referenced(pdu.get("auth_events"), event.version)
    if state_key is not None:
        event.key = (kind, state_key)
    membership = content.get("membership") if kind == "m.room.member" else None
    event.membership = membership if isinstance(membership, str) else None


class _Attributes(msgspec.Struct, gc=False):
    """What is read of the text of an event."""

    type: str
    sender: str
    content: dict[str, Any]
    depth: int
    origin_server_ts: int
    auth_events: tuple[str, ...] = ()
    prev_events: tuple[str, ...] = ()
    room_id: str | None = None
    state_key: str | None = None


_DECODER = msgspec.json.Decoder(_Attributes)


def _read_text(event: Event, read: _Attributes) -> None:
    """All of them, as the functions around read them from the federation form."""
    event.type = kind = read.type
    event.state_key = state_key = read.state_key
    event.is_state = state_key is not None
    event.is_create = state_key == "" and kind == "m.room.create"
    event.sender = read.sender
    event.content = content = read.content
    event.auth_event_ids = read.auth_events
    event.prev_event_ids = read.prev_events
    event.depth = read.depth
    event.origin_server_ts = read.origin_server_ts
    room_id = read.room_id
    event.room_id = room_id if room_id is not None else "!" + event.event_id[1:]
    if state_key is not None:
        event.key = (kind, state_key)
    membership = content.get("membership") if kind == "m.room.member" else None
    event.membership = membership if isinstance(membership, str) else None


def _read_key(event: Event, pdu: JsonObject) -> None:
    event.key = (pdu["type"], pdu["state_key"])


def _read_room_id(event: Event, pdu: JsonObject) -> None:
    room_id = pdu.get("room_id")
    event.room_id = room_id if room_id is not None else "!" + event.event_id[1:]


def _read_depth(event: Event, pdu: JsonObject) -> None:
    event.depth = pdu["depth"]


def _read_time(event: Event, pdu: JsonObject) -> None:
    event.origin_server_ts = pdu["origin_server_ts"]


def _read_prev(event: Event, pdu: JsonObject) -> None:
    event.prev_event_ids = _referenced(pdu.get("prev_events"), event.version)


_READERS: Final[Mapping[str, Callable[[Event, JsonObject], None]]] = {
    "auth_event_ids": _read_common,
    "content": _read_common,
    "depth": _read_depth,
    "is_create": _read_common,
    "is_state": _read_common,
    "key": _read_key,
    "membership": _read_common,
    "origin_server_ts": _read_time,
    "prev_event_ids": _read_prev,
    "room_id": _read_room_id,
    "sender": _read_common,
    "state_key": _read_common,
    "type": _read_common,
}


def _referenced(entries: Any, version: RoomVersion) -> tuple[str, ...]:
    if not entries:
        return ()
    # In versions 1 and 2 an entry is a pair of event ID and hashes.
    return tuple(entry[0] for entry in entries) if version.event_format == 1 else tuple(entries)
