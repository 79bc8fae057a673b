"""Filters of the client-server API: parsed strictly once, then matched on plain data.

Client-server API, "Filtering"; schemas `sync_filter`, `room_event_filter` and `event_filter`.
`parse_filter` and `parse_room_event_filter` raise MatrixError 400: M_BAD_JSON for a value of the
wrong type, M_INVALID_PARAM for one out of range; both name the field. Unknown keys are ignored.
Parsed filters are frozen and hashable.

In `types` only `*` is special. What excludes beats what includes; an empty list of what to
include includes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from homeserver.core.errors import bad_json, invalid_param
from homeserver.core.globs import MAX_GLOB_LENGTH, compile_glob
from homeserver.core.property_paths import (
    ABSENT,
    MAX_PATH_LENGTH,
    PropertyPath,
    lookup,
    split_path,
)
from homeserver.core.types import JsonObject

MAX_ITEMS = 1000
"""Longest list in a filter."""
MAX_WILDCARDS = 100
"""Most entries with a `*` in one list of types."""
MAX_PATH_DEPTH = 64
"""Most property names in one entry of `event_fields`."""
MAX_ID_LENGTH = 255

T = TypeVar("T", bound="EventFilter")


@dataclass(frozen=True, slots=True)
class TypePatterns:
    """A list of event types: `exact` names, and `wildcards` (patterns with a `*`).

    For SQL: `exact` as a list of values; each wildcard through `globs.like_pattern` or
    `globs.sqlite_glob_pattern`.
    """

    exact: frozenset[str] = frozenset()
    wildcards: tuple[str, ...] = ()

    def matches(self, event_type: str) -> bool:
        if event_type in self.exact:
            return True
        return any(_wildcard_matches(pattern, event_type) for pattern in self.wildcards)

    @property
    def is_everything(self) -> bool:
        return "*" in self.wildcards

    def __bool__(self) -> bool:
        return bool(self.exact or self.wildcards)


def _wildcard_matches(pattern: str, event_type: str) -> bool:
    return compile_glob(pattern, ignore_case=False, question_mark=False).matches(event_type)


# Each empty set by itself would take 200 bytes, and a filter has more than a dozen.
_NONE: frozenset[str] = frozenset()
_NO_TYPES = TypePatterns()


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events of a section to send. None in `types` or `senders`: all of them."""

    limit: int | None = None
    types: TypePatterns | None = None
    not_types: TypePatterns = _NO_TYPES
    senders: frozenset[str] | None = None
    not_senders: frozenset[str] = _NONE

    def matches(self, event_type: str, sender: str | None = None) -> bool:
        """Whether an event passes, by type and sender (None: the event has none)."""
        return self.matches_type(event_type) and self.matches_sender(sender)

    def matches_type(self, event_type: str) -> bool:
        if self.not_types and self.not_types.matches(event_type):
            return False
        return self.types is None or self.types.matches(event_type)

    def matches_sender(self, sender: str | None) -> bool:
        if sender in self.not_senders:
            return False
        return self.senders is None or sender in self.senders

    def limit_within(self, default: int, maximum: int) -> int:
        """The limit to use: `default` if the client gave none, never above `maximum`."""
        return min(default if self.limit is None else self.limit, maximum)

    @property
    def matches_everything(self) -> bool:
        """No event is held back by this filter (`limit` aside)."""
        return _every_type_and_sender(self)

    @property
    def matches_nothing(self) -> bool:
        """Every event is held back: there is no need to look for any."""
        return _no_type_or_sender(self)


def _every_type_and_sender(wanted: EventFilter) -> bool:
    included = wanted.types is None and wanted.senders is None
    return included and not wanted.not_types and not wanted.not_senders


def _no_type_or_sender(wanted: EventFilter) -> bool:
    if wanted.types is not None and not wanted.types:
        return True
    if wanted.senders is not None and not wanted.senders - wanted.not_senders:
        return True
    return wanted.not_types.is_everything


@dataclass(frozen=True, slots=True)
class RoomEventFilter(EventFilter):
    """An EventFilter for events in rooms."""

    rooms: frozenset[str] | None = None
    not_rooms: frozenset[str] = _NONE
    contains_url: bool | None = None
    lazy_load_members: bool = False
    include_redundant_members: bool = False
    unread_thread_notifications: bool = False
    old_thread_name: bool = False
    """Whether these are asked for by the name that they had before version 1.4 (MSC3773)."""
    related_by_senders: frozenset[str] | None = None
    related_by_rel_types: frozenset[str] | None = None
    rel_types: frozenset[str] | None = None
    not_rel_types: frozenset[str] = _NONE

    def matches_room(self, room_id: str) -> bool:
        if room_id in self.not_rooms:
            return False
        return self.rooms is None or room_id in self.rooms

    def matches_event(
        self,
        event_type: str,
        sender: str | None,
        room_id: str,
        *,
        contains_url: bool = False,
        rel_type: str | None = None,
    ) -> bool:
        """Whether an event in a room passes everything that the event alone decides.

        Parameters: `contains_url` from `content_contains_url`; `rel_type`, how the event relates
        to another, None if it does not. If `needs_relations`, ask `matches_relations` too.
        """
        if self.contains_url is not None and self.contains_url is not contains_url:
            return False
        if self.rel_types is not None and rel_type not in self.rel_types:
            return False
        if rel_type in self.not_rel_types:
            return False
        return self.matches_room(room_id) and self.matches(event_type, sender)

    @property
    def needs_relations(self) -> bool:
        """Whether events pass only by what relates to them."""
        return self.related_by_senders is not None or self.related_by_rel_types is not None

    def matches_relations(self, relations: Iterable[tuple[str, str]]) -> bool:
        """Whether an event passes by one of the (rel_type, sender) pairs relating to it."""
        if not self.needs_relations:
            return True
        return any(
            (self.related_by_rel_types is None or rel_type in self.related_by_rel_types)
            and (self.related_by_senders is None or sender in self.related_by_senders)
            for rel_type, sender in relations
        )

    @property
    def matches_everything(self) -> bool:
        return (
            _every_type_and_sender(self)
            and self.rooms is None
            and not self.not_rooms
            and self.contains_url is None
            and self.rel_types is None
            and not self.not_rel_types
            and not self.needs_relations
        )

    @property
    def matches_nothing(self) -> bool:
        if self.rooms is not None and not self.rooms - self.not_rooms:
            return True
        return _no_type_or_sender(self)


@dataclass(frozen=True, slots=True)
class RoomFilter:
    """The `room` part of a Filter. `matches_room` comes before the sections' own filters."""

    rooms: frozenset[str] | None = None
    not_rooms: frozenset[str] = _NONE
    include_leave: bool = False
    timeline: RoomEventFilter = RoomEventFilter()
    state: RoomEventFilter = RoomEventFilter()
    ephemeral: RoomEventFilter = RoomEventFilter()
    account_data: RoomEventFilter = RoomEventFilter()

    def matches_room(self, room_id: str) -> bool:
        if room_id in self.not_rooms:
            return False
        return self.rooms is None or room_id in self.rooms

    @property
    def lazy_load_members(self) -> bool:
        """Members are lazy-loaded if the state section, where they appear, says so."""
        return self.state.lazy_load_members

    @property
    def unread_thread_notifications(self) -> bool:
        """Whether to count unread notifications thread by thread."""
        return self.timeline.unread_thread_notifications

    @property
    def old_thread_name(self) -> bool:
        """Whether the counts of threads are given under their old name as well."""
        return self.timeline.old_thread_name


@dataclass(frozen=True, slots=True)
class Filter:
    """A Filter as taken by /sync. `event_fields` None: whole events."""

    event_fields: tuple[PropertyPath, ...] | None = None
    event_format: Literal["client", "federation"] = "client"
    presence: EventFilter = EventFilter()
    account_data: EventFilter = EventFilter()
    room: RoomFilter = RoomFilter()
    profile_fields: frozenset[str] = _NONE
    """Fields of profiles of which changes are wanted (MSC4429)."""

    def trim(self, event: JsonObject) -> JsonObject:
        """The event with only the wanted fields: a new object, or `event` if all are wanted."""
        if self.event_fields is None:
            return event
        trimmed: JsonObject = {}
        for path in self.event_fields:
            value = lookup(event, path)
            if value is ABSENT:
                continue
            target = trimmed
            for name in path[:-1]:
                target = target.setdefault(name, {})
            target[path[-1]] = value
        return trimmed


NO_FILTER = Filter()
NO_ROOM_EVENT_FILTER = RoomEventFilter()


def content_contains_url(content: Any) -> bool:
    """Whether an event's content has a `url`, as `contains_url` asks."""
    return isinstance(content, dict) and "url" in content


def parse_filter(source: Any) -> Filter:
    """The Filter that a JSON value describes. Raises MatrixError 400, see the module."""
    fields = _Fields(source, "filter")
    event_format = fields.text("event_format", "client")
    if event_format not in ("client", "federation"):
        raise invalid_param("filter.event_format must be client or federation.")
    return Filter(
        event_fields=_event_fields(fields),
        event_format="federation" if event_format == "federation" else "client",
        presence=_event_filter(EventFilter, fields.child("presence")),
        account_data=_event_filter(EventFilter, fields.child("account_data")),
        room=_room_filter(fields.child("room")),
        profile_fields=frozenset(
            fields.child("org.matrix.msc4429.profile_fields").texts("ids", MAX_ID_LENGTH) or ()
        ),
    )


def parse_room_event_filter(source: Any, name: str = "filter") -> RoomEventFilter:
    """The filter of /messages, /context and /search. Raises MatrixError 400, see the module."""
    return _room_event_filter(_Fields(source, name))


def _room_filter(fields: _Fields) -> RoomFilter:
    return RoomFilter(
        rooms=fields.ids("rooms", "!"),
        not_rooms=fields.ids("not_rooms", "!") or _NONE,
        include_leave=bool(fields.flag("include_leave")),
        timeline=_room_event_filter(fields.child("timeline")),
        state=_room_event_filter(fields.child("state")),
        ephemeral=_room_event_filter(fields.child("ephemeral")),
        account_data=_room_event_filter(fields.child("account_data")),
    )


def _event_filter(kind: type[T], fields: _Fields, **more: Any) -> T:
    types = fields.types("types")
    return kind(
        limit=fields.count("limit"),
        types=None if types is not None and types.is_everything else types,
        not_types=fields.types("not_types") or _NO_TYPES,
        senders=fields.ids("senders", "@"),
        not_senders=fields.ids("not_senders", "@") or _NONE,
        **more,
    )


def _room_event_filter(fields: _Fields) -> RoomEventFilter:
    old_threads = fields.flag("org.matrix.msc3773.unread_thread_notifications")
    threads = fields.flag("unread_thread_notifications")
    if threads is None:
        threads = old_threads
    return _event_filter(
        RoomEventFilter,
        fields,
        rooms=fields.ids("rooms", "!"),
        not_rooms=fields.ids("not_rooms", "!") or _NONE,
        contains_url=fields.flag("contains_url"),
        lazy_load_members=bool(fields.flag("lazy_load_members")),
        include_redundant_members=bool(fields.flag("include_redundant_members")),
        unread_thread_notifications=bool(threads),
        old_thread_name=bool(old_threads),
        related_by_senders=fields.ids("related_by_senders", "@", "io.element.relation_senders"),
        related_by_rel_types=fields.ids("related_by_rel_types", "", "io.element.relation_types"),
        rel_types=fields.ids("rel_types", "", "org.matrix.msc3874.rel_types"),
        not_rel_types=fields.ids("not_rel_types", "", "org.matrix.msc3874.not_rel_types") or _NONE,
    )


def _event_fields(fields: _Fields) -> tuple[PropertyPath, ...] | None:
    texts = fields.texts("event_fields", MAX_PATH_LENGTH)
    if texts is None:
        return None
    # Shorter paths first, longer ones below them dropped: `trim` never writes into a value that
    # belongs to the event.
    paths: set[PropertyPath] = set()
    for path in sorted({split_path(text) for text in texts}, key=len):
        if len(path) > MAX_PATH_DEPTH:
            raise invalid_param("filter.event_fields has an entry that is too deep.")
        if not any(path[:length] in paths for length in range(1, len(path))):
            paths.add(path)
    return tuple(sorted(paths))


class _Fields:
    """Typed access to the keys of a JSON object; `name` is where it stands, for errors."""

    def __init__(self, source: Any, name: str) -> None:
        if not isinstance(source, dict):
            raise bad_json(f"{name} must be an object.")
        self._source: JsonObject = source
        self._name = name

    def _where(self, key: str) -> str:
        return f"{self._name}.{key}"

    def child(self, key: str) -> _Fields:
        return _Fields(self._source.get(key, {}), self._where(key))

    def flag(self, key: str) -> bool | None:
        value = self._source.get(key, ABSENT)
        if value is ABSENT:
            return None
        if not isinstance(value, bool):
            raise bad_json(f"{self._where(key)} must be true or false.")
        return value

    def text(self, key: str, default: str) -> str:
        value = self._source.get(key, default)
        if not isinstance(value, str):
            raise bad_json(f"{self._where(key)} must be a string.")
        return value

    def count(self, key: str) -> int | None:
        value = self._source.get(key, ABSENT)
        if value is ABSENT:
            return None
        if not isinstance(value, int) or isinstance(value, bool):
            raise bad_json(f"{self._where(key)} must be an integer.")
        if value < 0:
            raise invalid_param(f"{self._where(key)} must not be negative.")
        return value

    def texts(self, key: str, longest: int) -> list[str] | None:
        value = self._source.get(key, ABSENT)
        if value is ABSENT:
            return None
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise bad_json(f"{self._where(key)} must be a list of strings.")
        if len(value) > MAX_ITEMS:
            raise invalid_param(f"{self._where(key)} has more than {MAX_ITEMS} entries.")
        if any(len(item) > longest for item in value):
            raise invalid_param(f"{self._where(key)} has an entry that is too long.")
        return value

    def types(self, key: str) -> TypePatterns | None:
        """A list of event types, or None if there is none."""
        values = self.texts(key, MAX_GLOB_LENGTH)
        if values is None:
            return None
        wildcards = tuple(sorted({value for value in values if "*" in value}))
        if len(wildcards) > MAX_WILDCARDS:
            raise invalid_param(f"{self._where(key)} has more than {MAX_WILDCARDS} wildcards.")
        return TypePatterns(frozenset(v for v in values if "*" not in v), wildcards)

    def ids(self, key: str, sigil: str, other_key: str = "") -> frozenset[str] | None:
        """A set of IDs starting with `sigil`, under `key` or else under an unstable name."""
        if other_key and key not in self._source:
            key = other_key
        values = self.texts(key, MAX_ID_LENGTH)
        if values is None:
            return None
        for value in values:
            if not value.startswith(sigil):
                raise invalid_param(f"{self._where(key)} has an entry without a leading {sigil}.")
        return frozenset(values)
